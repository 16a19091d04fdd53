package fsm

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// A snapshot is a stream of records in a frame:
//
//	magic    8 bytes
//	format   4 bytes, big endian
//	records  each a length of at least 1 (unsigned varint), and that many bytes
//	end      a length of 0
//	sum      SHA-256 of all before it
//
// The end mark tells a whole snapshot from one cut off between two records. SHA-256, and not a CRC: Raft's own
// file store has a CRC against the disk's faults, while a snapshot also travels and is kept as a backup, and
// the sum names a state, the same on every node. It costs about as much as a CRC where the CPU knows it.
const (
	// magic has what a transfer in text mode would change.
	magic = "KQSNAP\r\n"
	// maxRecord bounds what a length can make a reader allocate. No user comes near it.
	maxRecord = 16 << 20
)

type recordWriter struct {
	w   *bufio.Writer
	sum hash.Hash
	buf []byte
}

func newRecordWriter(w io.Writer) *recordWriter {
	r := &recordWriter{w: bufio.NewWriterSize(w, 1<<16), sum: sha256.New()}
	r.emit(binary.BigEndian.AppendUint32([]byte(magic), Format))
	return r
}

// emit writes b; bufio keeps the error until finish.
func (r *recordWriter) emit(b []byte) {
	r.sum.Write(b)
	_, _ = r.w.Write(b)
}

func (r *recordWriter) record(b []byte) error {
	if len(b) == 0 || len(b) > maxRecord {
		return fmt.Errorf("a record of %d bytes", len(b))
	}
	r.buf = binary.AppendUvarint(r.buf[:0], uint64(len(b)))
	r.emit(r.buf)
	r.emit(b)
	return nil
}

func (r *recordWriter) finish() error {
	r.emit([]byte{0})
	_, _ = r.w.Write(r.sum.Sum(nil))
	return r.w.Flush()
}

type recordReader struct {
	r   *bufio.Reader
	sum hash.Hash
	buf []byte
}

var errCutOff = errors.New("it is cut off")

func newRecordReader(r io.Reader) (*recordReader, error) {
	rr := &recordReader{r: bufio.NewReaderSize(r, 1<<16), sum: sha256.New()}
	head, err := rr.read(len(magic) + 4)
	if err != nil {
		return nil, err
	}
	if string(head[:len(magic)]) != magic {
		return nil, errors.New("it is no snapshot of Keyquorum's")
	}
	if format := binary.BigEndian.Uint32(head[len(magic):]); format != Format {
		return nil, formatError(format)
	}
	return rr, nil
}

// read gives the next n bytes; they are good until the next call. What is allocated grows with what there is to
// read, not with what n claims.
func (r *recordReader) read(n int) ([]byte, error) {
	const step = 1 << 16
	r.buf = r.buf[:0]
	for len(r.buf) < n {
		from := len(r.buf)
		r.buf = append(r.buf, make([]byte, min(step, n-from))...)
		if _, err := io.ReadFull(r.r, r.buf[from:]); err != nil {
			return nil, cutOff(err)
		}
	}
	r.sum.Write(r.buf)
	return r.buf, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errCutOff
	}
	return err
}

// record gives the next record, good until the next call.
func (r *recordReader) record() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, errors.New("it ends before its last record")
	}
	return r.read(n)
}

// length reads the length of a record, in its one spelling.
func (r *recordReader) length() (int, error) {
	var raw [binary.MaxVarintLen64]byte
	n, err := binary.ReadUvarint(r.r)
	if err != nil {
		return 0, cutOff(err)
	}
	if n > maxRecord {
		return 0, fmt.Errorf("a record of %d bytes is longer than any can be", n)
	}
	// What is summed is the canonical spelling, so another one fails at the latest at the sum.
	r.sum.Write(raw[:binary.PutUvarint(raw[:], n)])
	return int(n), nil
}

// finish checks that the stream ends here, and is what was written.
func (r *recordReader) finish() error {
	switch n, err := r.length(); {
	case err != nil:
		return err
	case n != 0:
		return errors.New("it has more records than it says")
	}
	want := r.sum.Sum(nil)
	got, err := r.read(len(want))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("its checksum is wrong: it was damaged after it was written")
	}
	if _, err := r.r.ReadByte(); !errors.Is(err, io.EOF) {
		return errors.New("something follows its end")
	}
	return nil
}
