package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"
)

// patience is how long a query may take, from the files to the answer. A server that is not there says so at once.
const patience = 10 * time.Second

// query reads the credentials, logs in with them and asks who it is there. It returns the user of the files, if they could
// be read. The error never has the password.
func query(ctx context.Context, volume string) (user string, err error) {
	user, password, err := credentials(volume)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	config, err := pgx.ParseConfig("sslmode=disable application_name=client")
	if err != nil {
		return user, err
	}
	config.User, config.Password = user, password
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return user, err
	}
	defer func() { _ = conn.Close(ctx) }()
	var there string
	if err := conn.QueryRow(ctx, "select current_user", pgx.QueryExecModeSimpleProtocol).Scan(&there); err != nil {
		return user, err
	}
	if there != user {
		return user, fmt.Errorf("PostgreSQL takes us for %q", there)
	}
	return user, nil
}

// credentials returns user and password that belong together. Both are read from the one directory that the volume's
// ..data names at that moment: through the links of the files themselves, the second could be of the next credentials.
//
// The directory may go away between the two, when the volume is swapped just then; whoever reads looks again at what is there
// now. It happens once in a swap, so twice in a row is a fault.
func credentials(volume string) (user, password string, err error) {
	for range 2 {
		var data string
		if data, err = filepath.EvalSymlinks(filepath.Join(volume, "..data")); err != nil {
			continue
		}
		var first, second []byte
		if first, err = os.ReadFile(filepath.Join(data, "db", "username")); err != nil {
			continue
		}
		if second, err = os.ReadFile(filepath.Join(data, "db", "password")); err != nil {
			continue
		}
		if len(first) == 0 || len(second) == 0 {
			return "", "", fmt.Errorf("a file in %q is empty", data)
		}
		return string(first), string(second), nil
	}
	return "", "", err
}
