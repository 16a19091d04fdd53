package certs

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
)

// Its own words, not a decoder's, which may quote what they do not understand.
var errKey = errors.New("it holds no private key that can be read: one is needed in PEM, in PKCS #8, SEC 1 or PKCS #1, and not encrypted")

// parseKey gives the first private key of a text in PEM. Blocks of other kinds before it, such as the parameters of a
// curve, are passed over. No error holds anything of the text.
func parseKey(text []byte) (crypto.Signer, error) {
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return nil, errKey
		}
		key, known := decodeKey(block)
		clear(block.Bytes)
		if known {
			if key == nil {
				return nil, errKey
			}
			return key, nil
		}
		text = rest
	}
}

// decodeKey tells whether a block is meant to be a private key, and gives the key if it is one that can sign.
func decodeKey(block *pem.Block) (key crypto.Signer, known bool) {
	var parsed any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	default:
		return nil, false
	}
	if err != nil {
		return nil, true
	}
	key, _ = parsed.(crypto.Signer)
	return key, true
}

func matches(key crypto.Signer, cert *x509.Certificate) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}
