package client

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"leasehold/internal/spec"
)

// maxTLSFile bounds a file of TLS material, so that a wrong path does not fill the memory.
const maxTLSFile = 1 << 20

// material is what a connection to Vault is made with. Its digest is over the contents of the files, not their names:
// a certificate authority that was rotated on the disk makes a new transport at the next login.
type material struct {
	config *tls.Config // never changed: transports clone it
	digest [sha256.Size]byte
}

// pems are the texts of a connection's TLS material, however they were named.
type pems struct {
	authorities [][]byte
	cert, key   []byte
}

// load reads the TLS material that t names.
func load(t spec.TLS) (material, error) {
	texts, err := read(t)
	if err != nil {
		return material{}, err
	}
	config := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		ServerName:         t.ServerName,
		InsecureSkipVerify: t.SkipVerify, //nolint:gosec // only where the operator allowed it: spec.Operator.Parse
	}
	if len(texts.authorities) > 0 {
		config.RootCAs = x509.NewCertPool()
		for _, pem := range texts.authorities {
			config.RootCAs.AppendCertsFromPEM(pem)
		}
	}
	switch hasCert, hasKey := len(texts.cert) > 0, len(texts.key) > 0; {
	case hasCert && hasKey:
		pair, err := tls.X509KeyPair(texts.cert, texts.key)
		if err != nil {
			return material{}, fmt.Errorf("client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	case hasCert:
		return material{}, errors.New("the client certificate has no key")
	case hasKey:
		return material{}, errors.New("the client key has no certificate")
	}
	return material{config, texts.digest(t)}, nil
}

// digest is over everything that config was made of, each part framed by its length.
func (p pems) digest(t spec.TLS) [sha256.Size]byte {
	sum := sha256.New()
	add := func(part []byte) {
		_ = binary.Write(sum, binary.BigEndian, int64(len(part)))
		_, _ = sum.Write(part)
	}
	add([]byte(t.ServerName))
	add([]byte(fmt.Sprint(t.SkipVerify)))
	add(p.cert)
	add(p.key)
	for _, pem := range p.authorities {
		add(pem)
	}
	return [sha256.Size]byte(sum.Sum(nil))
}

// read collects the texts. Those of the volume's nodePublishSecretRef take the place of the files.
func read(t spec.TLS) (pems, error) {
	var p pems
	var err error
	one := func(what, text string, f spec.File) []byte {
		if text != "" || f.Path == "" || err != nil {
			return []byte(text)
		}
		var contents []byte
		if contents, err = readFile(f); err != nil {
			err = fmt.Errorf("%s: %w", what, err)
		}
		return contents
	}
	if ca := one("CA certificate", t.CA, t.CACert); len(ca) > 0 {
		p.authorities = append(p.authorities, ca)
	}
	p.cert = one("client certificate", t.Cert, t.ClientCert)
	p.key = one("client key", t.Key.Reveal(), t.ClientKey)
	if err != nil {
		return pems{}, err
	}
	if t.CADirectory.Path != "" {
		files, err := readDirectory(t.CADirectory)
		if err != nil {
			return pems{}, fmt.Errorf("CA directory: %w", err)
		}
		p.authorities = append(p.authorities, files...)
	}
	for _, pem := range p.authorities {
		if !x509.NewCertPool().AppendCertsFromPEM(pem) {
			return pems{}, errors.New("CA certificate: no PEM certificate in it")
		}
	}
	return p, nil
}

// inRoot hands visit the file system in which f's path is to be looked up, and the path there. Behind a Root that is
// an os.Root, which neither ".." nor a symbolic link leads out of.
func inRoot(f spec.File, visit func(fsys fs.FS, name string) error) error {
	if f.Root == "" {
		return visit(os.DirFS(path.Dir(f.Path)), path.Base(f.Path))
	}
	name := path.Clean(f.Path)
	if !fs.ValidPath(name) {
		return fmt.Errorf("%q: leads out of the TLS directory", f.Path)
	}
	root, err := os.OpenRoot(f.Root)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return visit(root.FS(), name)
}

// readFile reads one file of TLS material.
func readFile(f spec.File) (contents []byte, err error) {
	err = inRoot(f, func(fsys fs.FS, name string) error {
		contents, err = readIn(fsys, name)
		return err
	})
	return contents, err
}

// readDirectory reads the files directly in a directory, in the order of their names. It passes over directories and
// over the "..data" of a projected volume, whose files are linked beside it.
func readDirectory(f spec.File) (files [][]byte, err error) {
	err = inRoot(f, func(fsys fs.FS, name string) error {
		entries, err := fs.ReadDir(fsys, name)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			at := path.Join(name, entry.Name())
			if info, err := fs.Stat(fsys, at); err == nil && info.IsDir() || strings.HasPrefix(entry.Name(), "..") {
				continue
			}
			contents, err := readIn(fsys, at)
			if err != nil {
				return err
			}
			files = append(files, contents)
		}
		if len(files) == 0 {
			return fmt.Errorf("%q: no file in it", f.Path)
		}
		return nil
	})
	return files, err
}

// readIn reads one regular file of bounded size.
func readIn(fsys fs.FS, name string) ([]byte, error) {
	info, err := fs.Stat(fsys, name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q: not a regular file", name)
	}
	file, err := fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	contents, err := io.ReadAll(io.LimitReader(file, maxTLSFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(contents) == 0:
		return nil, fmt.Errorf("%q: empty", name)
	case len(contents) > maxTLSFile:
		return nil, fmt.Errorf("%q: larger than %d bytes", name, maxTLSFile)
	}
	return contents, nil
}
