package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/keyquorum/keyquorum/internal/plainfile"
)

const (
	// CACertFile is the CA's certificate in its folder: what others need to trust the CA.
	CACertFile = "ca.crt"
	// CAKeyFile is the CA's private key in its folder: what nobody but the CA may have.
	CAKeyFile = "ca.key"

	certMode = 0o644
	keyMode  = 0o600
	// maxFile is far more than a certificate or a key has, in bytes.
	maxFile = 64 << 10

	certBlock = "CERTIFICATE"
	keyBlock  = "PRIVATE KEY" // PKCS #8 (RFC 5958)
	pemBegin  = "-----BEGIN "
)

// Leaf is a certificate that a CA has issued, with its key. It does not print the key.
type Leaf struct {
	cert *x509.Certificate
	key  privateKey
}

// Certificate is the leaf's. It is not to be changed.
func (l *Leaf) Certificate() *x509.Certificate { return l.cert }

// Write writes the certificate and the private key, in PEM, to two new files: the key (PKCS #8) for its owner alone.
// What is there already is left alone and gives an error that wraps fs.ErrExist; then neither file is
// written. Both are on disk when Write returns.
func (l *Leaf) Write(certPath, keyPath string) error {
	return writePair(certPath, keyPath, l.cert, l.key)
}

// Write writes the CA to CACertFile and CAKeyFile in the folder dir, which is made, for its owner alone, if it is
// missing; its parent must exist. Else it is as Leaf.Write.
func (c *CA) Write(dir string) error {
	if err := plainfile.MakeDir(dir); err != nil {
		return err
	}
	return writePair(filepath.Join(dir, CACertFile), filepath.Join(dir, CAKeyFile), c.cert, c.key)
}

// writePair writes the key first: a certificate without its key is good for nothing, and looks as if it were.
func writePair(certPath, keyPath string, cert *x509.Certificate, key privateKey) error {
	for _, path := range []string{keyPath, certPath} {
		if _, err := os.Lstat(path); err == nil {
			return plainfile.Exists(path)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key.reveal())
	if err != nil {
		return errors.New("the private key cannot be encoded")
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
	defer clear(text)
	if err := plainfile.WriteNew(keyPath, text, keyMode); err != nil {
		return err
	}
	if err := plainfile.WriteNew(certPath, EncodeCertificate(cert), certMode); err != nil {
		return errors.Join(err, os.Remove(keyPath)) // nobody else's: it was made just now
	}
	return nil
}

// EncodeCertificate gives a certificate in PEM.
func EncodeCertificate(cert *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: cert.Raw})
}

// OpenCA reads the CA that Write left in dir; now is its clock, time.Now if nil. It is refused if others than its owner can
// read or change its key (the error wraps plainfile.ErrOpen), if the two files do not belong together, or if
// the certificate is none of a CA. Whether it is valid still is seen when it issues. An error names the file, and holds
// nothing of the key.
func OpenCA(dir string, now func() time.Time) (*CA, error) {
	cert, err := readCACert(filepath.Join(dir, CACertFile))
	if err != nil {
		return nil, err
	}
	keyPath := filepath.Join(dir, CAKeyFile)
	key, err := readKey(keyPath)
	if err != nil {
		return nil, err
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(key.reveal().Public()) {
		return nil, fmt.Errorf("%s is not the key of the certificate beside it", keyPath)
	}
	return &CA{cert, key, clock(now)}, nil
}

func readCACert(path string) (*x509.Certificate, error) {
	text, err := plainfile.Read(path, maxFile, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no CA: make one with \"keyquorum ca init\": %w", err)
	}
	if err != nil {
		return nil, err
	}
	certs, err := ParseCertificates(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	case len(certs) != 1:
		return nil, fmt.Errorf("%s has %d certificates: a CA has one", path, len(certs))
	}
	if err := CheckCA(certs[0]); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return certs[0], nil
}

// errNotCA says that a certificate cannot be what others are checked against.
var errNotCA = errors.New("is not that of a CA: it may not sign certificates")

// CheckCA tells that a certificate is not that of a CA (RFC 5280, 4.2.1.9 and 4.2.1.3), or nil.
func CheckCA(cert *x509.Certificate) error {
	if !cert.BasicConstraintsValid || !cert.IsCA || cert.KeyUsage != 0 && cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return fmt.Errorf("the certificate of %q %w", cert.Subject, errNotCA)
	}
	return nil
}

// ParseCertificates gives the certificates of a text in PEM, in its order. Text between the blocks is passed over;
// blocks that are damaged or of another kind are refused, as a key has no business there, and so is a text without a
// certificate.
func ParseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		begun := bytes.Count(text[:len(text)-len(rest)], []byte(pemBegin)) // the decoder passes over what it cannot read
		switch {
		case block == nil && !bytes.Contains(text, []byte(pemBegin)):
			return certs, unlessEmpty(certs)
		case block == nil, begun != 1:
			return nil, fmt.Errorf("certificate %d is damaged or cut off", len(certs)+1)
		case block.Type != certBlock:
			return nil, fmt.Errorf("it holds a block %q, where certificates belong alone", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d cannot be read: %w", len(certs)+1, err)
		}
		certs, text = append(certs, cert), rest
	}
}

func unlessEmpty(certs []*x509.Certificate) error {
	if len(certs) == 0 {
		return errors.New("it holds no certificate in PEM")
	}
	return nil
}

// readKey reads a private key that no one else can. No error holds anything of its content: not even those of decoders,
// which may quote what they do not understand.
func readKey(path string) (privateKey, error) {
	text, err := plainfile.Read(path, maxFile, plainfile.Private)
	if err != nil {
		return privateKey{}, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return privateKey{}, fmt.Errorf("%s holds no private key in PEM as \"keyquorum ca init\" writes it (PKCS #8)", path)
	}
	defer clear(block.Bytes)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	key, ok := parsed.(*ecdsa.PrivateKey)
	if err != nil || !ok {
		return privateKey{}, fmt.Errorf("%s holds no ECDSA key that can be read", path)
	}
	return hide(key), nil
}
