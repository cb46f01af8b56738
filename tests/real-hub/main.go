// Command real-hub runs the real Cloud Sync Service or Edge Sync Service of Open Horizon (edge-sync-service as a
// library) for the contract tests: `-c css.conf` or `-c ess.conf` decides which. Only the authenticator is its own. It
// gives each caller the role that anax and the hub's Exchange give it, from a file of credentials that is read again at
// every check, so that a test can add a service or replace a token while the hub runs.
//
// Bind it to loopback only: the credentials are test data.
package main

import (
	"crypto/subtle"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/open-horizon/edge-sync-service/common"
	"github.com/open-horizon/edge-sync-service/core/base"
	"github.com/open-horizon/edge-sync-service/core/security"
)

// credential describes one caller. Identity is the name by which the sync service knows it: "svcOrg/version/name" for a
// service, "destinationType/destinationID" for a node's ESS, the plain user or node name for the others.
type credential struct {
	Token    string `json:"token"`
	Role     string `json:"role"`
	Org      string `json:"org"`
	Identity string `json:"identity"`
}

// credentialFile maps the user name of HTTP Basic to its credential. Hub names the entry that the ESS itself uses at the CSS.
type credentialFile struct {
	Hub         string                `json:"hub"`
	Credentials map[string]credential `json:"credentials"`
}

var roles = map[string]int{
	"admin":    security.AuthAdmin,
	"user":     security.AuthObjectAdmin,
	"service":  security.AuthService,
	"node":     security.AuthEdgeNode,
	"nodeuser": security.AuthNodeUser,
}

type fileAuthenticator struct{ path string }

func (a *fileAuthenticator) load() (*credentialFile, error) {
	text, err := os.ReadFile(a.path)
	if err != nil {
		return nil, err
	}
	var file credentialFile
	if err := json.Unmarshal(text, &file); err != nil {
		return nil, fmt.Errorf("%s: %w", a.path, err)
	}
	for name, entry := range file.Credentials {
		if _, known := roles[entry.Role]; !known {
			return nil, fmt.Errorf("%s: %q has the unknown role %q", a.path, name, entry.Role)
		}
	}
	return &file, nil
}

// Start is part of security.Authentication; there is nothing to prepare.
func (a *fileAuthenticator) Start() {}

// Authenticate returns the caller's role, org and identity. If the file cannot be read, it refuses every caller.
func (a *fileAuthenticator) Authenticate(request *http.Request) (int, string, string) {
	name, token, ok := request.BasicAuth()
	if !ok {
		return security.AuthFailed, "", ""
	}
	file, err := a.load()
	if err != nil {
		fmt.Fprintln(os.Stderr, "real-hub:", err)
		return security.AuthFailed, "", ""
	}
	entry, ok := file.Credentials[name]
	if !ok || subtle.ConstantTimeCompare([]byte(token), []byte(entry.Token)) != 1 {
		return security.AuthFailed, "", ""
	}
	return roles[entry.Role], entry.Org, entry.Identity
}

// KeyandSecretForURL returns the credentials of the ESS at the CSS; no other URL gets a secret.
func (a *fileAuthenticator) KeyandSecretForURL(url string) (string, string) {
	if !strings.HasPrefix(url, common.HTTPCSSURL) {
		return "", ""
	}
	file, err := a.load()
	if err != nil {
		fmt.Fprintln(os.Stderr, "real-hub:", err)
		return "", ""
	}
	return file.Hub, file.Credentials[file.Hub].Token
}

func main() {
	path := flag.String("auth", "", "file of credentials (JSON, see tests/contract)")
	withStdin := flag.Bool("exit-with-stdin", false, "end when standard input closes, so that no hub outlives its test run")
	base.ConfigStandaloneSyncService() // parses the flags, including -c
	authenticator := &fileAuthenticator{path: *path}
	if _, err := authenticator.load(); err != nil {
		fmt.Fprintln(os.Stderr, "real-hub: give a readable file of credentials with -auth:", err)
		os.Exit(2)
	}
	if *withStdin {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			os.Exit(0)
		}()
	}
	base.StandaloneSyncService(authenticator)
}
