package integration

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"leasehold/test/integration/bed"
)

// canary searches all that the product said in this run, with debug logging on, for every secret of the run.
func canary(w *world) error {
	secrets, err := w.secrets()
	if err != nil {
		return err
	}
	texts, err := w.said()
	if err != nil {
		return err
	}
	return search(secrets, texts)
}

// secrets returns what nobody may find in the product's words: the tokens, JWTs, passwords and data that the Vaults heard
// and answered, the tokens that the signer signed, what the volumes show, and the keys of all TLS certificates.
//
// What is a secret is decided where it comes from, never by how it looks or where it turns up: a file of a volume that is
// not secret, such as a user name, counts as well, for the product has no business to say it either.
func (w *world) secrets() ([]string, error) {
	audits, err := w.files("vault*/audit.log")
	if err != nil {
		return nil, err
	}
	secrets := w.signer.Issued()
	for path := range audits {
		heard, err := bed.Secrets(path)
		if err != nil {
			return nil, err
		}
		secrets = append(secrets, heard...)
	}
	volumes, err := filepath.Glob(filepath.Join(w.bed.Dir, "providers*", "kubelet"))
	if err != nil {
		return nil, err
	}
	for _, dir := range volumes {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return gone(err) // volumes of tests at work come and go
			}
			text, err := os.ReadFile(path)
			secrets = append(secrets, string(text))
			return gone(err)
		})
		if err != nil {
			return nil, err
		}
	}
	keys, err := w.files("authority*/*.key")
	if err != nil {
		return nil, err
	}
	for _, pem := range keys {
		secrets = append(secrets, string(pem))
		for line := range strings.Lines(string(pem)) {
			if !strings.HasPrefix(line, "-----") {
				secrets = append(secrets, strings.TrimSpace(line))
			}
		}
	}
	slices.Sort(secrets)
	return slices.Compact(secrets), nil
}

// said returns the product's words: what tests have recorded, and the logs of all providers, of those that still run too.
func (w *world) said() (map[string][]byte, error) {
	texts, err := w.files("provider*.log")
	if err != nil {
		return nil, err
	}
	maps.Copy(texts, w.recorded())
	return texts, nil
}

// files reads the files of the bed that a pattern matches, by path.
func (w *world) files(pattern string) (map[string][]byte, error) {
	paths, err := filepath.Glob(filepath.Join(w.bed.Dir, pattern))
	if err != nil {
		return nil, err
	}
	texts := make(map[string][]byte, len(paths))
	for _, path := range paths {
		if texts[path], err = os.ReadFile(path); err != nil {
			return nil, err
		}
	}
	return texts, nil
}

// gone makes no error of a file that is not there any more.
func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// search returns an error that lists where secrets stand in texts, and never the secrets. To find nothing, it must have
// had something to look for, and somewhere to look.
func search(secrets []string, texts map[string][]byte) error {
	if len(secrets) == 0 {
		return errors.New("there are no secrets to search for")
	}
	for _, sign := range []struct{ of, text string }{
		{"no log at level debug", `"level":"DEBUG"`},
		{"no metrics", "leasehold_mount_duration_seconds_count{"},
		{"no status", "LAST ERROR"},
	} {
		shows := func(name string) bool { return strings.Contains(string(texts[name]), sign.text) }
		if !slices.ContainsFunc(slices.Collect(maps.Keys(texts)), shows) {
			return fmt.Errorf("there is %s to search", sign.of)
		}
	}
	leaks := bed.Leaks(secrets, texts)
	if len(leaks) == 0 {
		return nil
	}
	const most = 20
	lines := []string{fmt.Sprintf("%d leaks:", len(leaks))}
	for _, leak := range leaks[:min(len(leaks), most)] {
		lines = append(lines, leak.String())
	}
	return errors.New(strings.Join(lines, "\n"))
}

// TestCanary plants secrets into a copy of what the product has said so far.
func TestCanary(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	role := role(t, bed.Role{})
	const odd = "correct \"horse\"\n<battery> & staple"
	must(t, "put", shared.vault.PutKV2(ctx, "kv", role, map[string]any{"word": odd}))
	provider := startProvider(t, bed.ProviderOptions{})
	volume := newVolume(t, provider, class(role, credentials(role)+"- {objectName: word, secretPath: kv/data/"+role+", secretKey: word}\n"))
	mustMount(t, volume)
	fails(t, newVolume(t, provider, class(role, "- {objectName: none, secretPath: cubbyhole/none}\n")), codes.NotFound)
	metrics(t, provider)
	jwt, err := shared.signer.Token(volume.Pod, "vault", time.Hour)
	must(t, "token", err)
	vault, err := shared.vault.Login(ctx, "kubernetes", role, jwt)
	must(t, "login", err)

	secrets, err := shared.secrets()
	must(t, "secrets", err)
	texts, err := shared.said()
	must(t, "texts", err)
	must(t, "before anything is planted", search(secrets, texts))
	ours := make(map[string][]byte) // to search all of the run for each planted secret would take long
	for _, name := range []string{provider.LogFile, t.Name() + ": metrics", t.Name() + ": status", t.Name() + ": error"} {
		if ours[name] = texts[name]; len(texts[name]) == 0 {
			t.Errorf("%s: got no text, want what the product said", name)
		}
	}
	for what, secret := range map[string]string{
		"JWT": jwt, "Vault token": vault.Token(), "root token": shared.vault.RootToken,
		"password": files(t, volume)["password"], "superuser's password": shared.postgres.Password, "word": odd,
	} {
		if !slices.Contains(secrets, secret) {
			t.Errorf("%s: got none in the secrets of this run", what)
		}
		quoted, err := json.Marshal("before " + secret + " after")
		must(t, "quote", err)
		for form, planted := range map[string]string{
			"plain":       "before " + secret + " after",
			"JSON":        string(quoted),
			"base64":      base64.StdEncoding.EncodeToString([]byte("before " + secret + " after")),
			"base64, URL": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		} {
			for name := range ours {
				copied := maps.Clone(ours)
				copied[name] = append(slices.Clone(copied[name]), "\n"+planted+"\n"...)
				err := search(secrets, copied)
				if err == nil {
					t.Errorf("%s, %s: planted into %s and not found", what, form, name)
				} else if !strings.Contains(err.Error(), name+":") || strings.Contains(err.Error(), secret) {
					t.Errorf("%s, %s: want an error that names %s and does not hold the secret", what, form, name)
				}
			}
		}
	}
}

// TestCanaryNeedsAir has nothing to search for, or nowhere to search.
func TestCanaryNeedsAir(t *testing.T) {
	secrets := []string{"a secret to search for"}
	log, metric := []byte(`{"level":"DEBUG"}`), []byte(`leasehold_mount_duration_seconds_count{code="OK"} 1`)
	status := []byte("POD  LAST ERROR")
	texts := func(all ...[]byte) map[string][]byte {
		named := make(map[string][]byte)
		for i, text := range all {
			named[fmt.Sprint(i)] = text
		}
		return named
	}
	must(t, "all is there", search(secrets, texts(log, metric, status)))
	for name, err := range map[string]error{
		"no secrets": search(nil, texts(log, metric, status)),
		"no texts":   search(secrets, nil),
		"no log":     search(secrets, texts(metric, status)),
		"no metrics": search(secrets, texts(log, status)),
		"no status":  search(secrets, texts(log, metric)),
	} {
		if err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
