package render

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
)

// Version returns the version of a file: 22 characters that change when its path, mode or contents change, and only
// then. It is shown in a SecretProviderClassPodStatus to whoever may read that, so it is keyed: without the key nobody
// can test a guess at the contents.
func Version(key [32]byte, f File) string {
	mac := hmac.New(sha256.New, key[:])
	// Each part is framed by its length, so that no two files have the same bytes in a row.
	var number [8]byte
	write := func(part []byte) {
		binary.BigEndian.PutUint64(number[:], uint64(len(part)))
		mac.Write(number[:])
		mac.Write(part)
	}
	write([]byte(f.Path))
	binary.BigEndian.PutUint64(number[:], uint64(f.Mode))
	mac.Write(number[:])
	write(f.Contents)
	const length = 16 // bytes of the 32: two different files meet by accident once in 2^64
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:length])
}
