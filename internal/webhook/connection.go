package webhook

import (
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"leasehold/internal/spec"
)

// connection is how the volumes of a pod reach Vault.
type connection struct {
	vault     spec.Vault // what the provider's defaults do not say
	tlsSecret string     // Secret with the TLS material, for the driver to pass on; "" = none

	// rootNamespace tells that the provider's default for the namespace does not hold: the pod wants none.
	rootNamespace bool

	// said is which annotation a parameter of the class comes from.
	said map[string]annotation
}

// connection reads what the annotations say of Vault. What is wrong with it by itself is left to package spec, which knows
// it better; here is what depends on the pod, on the policy and on there being no agent.
func (p Policy) connection(w *wish, pod *corev1.Pod) connection {
	c := connection{said: make(map[string]annotation)}
	take := func(s setting, parameter string) string {
		if s.value != "" {
			c.said[parameter] = s.annotation
		}
		return s.value
	}
	c.vault.Address = take(w.address, "vaultAddress")
	if c.vault.Address == "" && p.Vault.Address == "" {
		w.deny("%sservice: is missing, and the operator has set no default: name the address of your Vault", annotationPrefix)
	}
	c.vault.Namespace = strings.Trim(take(w.vaultNamespace, "vaultNamespace"), "/")
	c.rootNamespace = w.vaultNamespace.given && c.vault.Namespace == ""
	c.vault.Role = p.chooseRole(w, pod, take)
	method, _ := strings.CutPrefix(strings.Trim(take(w.authPath, "vaultAuthMountPath"), "/")+"/", "auth/")
	c.vault.AuthPath = strings.Trim(method, "/")
	if c.vault.AuthPath == "" && w.authPath.value != "" {
		w.deny("%s: %s names no auth method: write its path, such as auth/kubernetes",
			w.authPath.annotation, quote(w.authPath.value))
	}
	w.checkAuthType()
	c.vault.Audience = w.audience(pod, take)
	c.vault.TLS.ServerName = take(w.serverName, "vaultTLSServerName")
	if w.skipVerify.truth {
		if !p.SkipVerify && !p.Vault.TLS.SkipVerify {
			w.deny("%s: the operator does not allow it: remove it, and put the certificate of Vault's authority as ca.crt into a "+
				"Secret that tls-secret names", w.skipVerify.annotation)
		}
		c.vault.TLS.SkipVerify = true
	}
	if w.proxy.value != "" {
		if p.ProxyAllowed {
			w.warn("%s: has no effect: the provider reaches Vault in the way that its operator has set up: remove it",
				w.proxy.annotation)
		} else {
			w.deny("%s: the provider cannot go by a proxy for a single pod: remove it, and ask the operator whether the provider "+
				"itself needs a proxy (HTTPS_PROXY)", w.proxy.annotation)
		}
	}
	c.tlsSecret = w.checkTLS()
	return c
}

func (p Policy) chooseRole(w *wish, pod *corev1.Pod, take func(setting, string) string) string {
	if role := take(w.role, "roleName"); role != "" {
		return role
	}
	if role := take(w.authConfigRole, "roleName"); role != "" {
		return role
	}
	role := p.role(pod)
	if role == "" {
		w.deny("%srole: is missing, and the operator has set no default: name the Vault role that the pod's service account logs "+
			"in with", annotationPrefix)
	}
	return role
}

// checkAuthType refuses methods by which an agent logs in as somebody else than the pod, and what would only tell an agent
// how to.
func (w *wish) checkAuthType() {
	isJWT := false
	switch strings.ToLower(w.authType.value) {
	case "", "kubernetes":
	case "jwt":
		isJWT = true
	default:
		w.impossible("%s: %s would log in as the node or as somebody else, and here each pod logs in with its own service "+
			"account: write kubernetes or jwt, with the auth-path and role of such a method",
			w.authType.annotation, quote(w.authType.value))
	}
	for _, more := range w.authConfigMore {
		switch {
		case isJWT && more.parameter == "path": // is read as token_path
		case isJWT && strings.HasPrefix(more.parameter, "remove_jwt_"): // there is no file to remove
		case more.value != "":
			w.impossible("%s: nothing here reads it: a login is made of role, auth-type, auth-path and the pod's service account "+
				"token: remove it", more.annotation)
		}
	}
}

// audience returns which of the pod's service account tokens logs in: that of the volume that an agent would have taken
// it from. "" is the one that the provider takes by itself.
func (w *wish) audience(pod *corev1.Pod, take func(setting, string) string) string {
	file := w.authConfigToken
	if strings.EqualFold(w.authType.value, "jwt") {
		for _, more := range w.authConfigMore {
			if more.parameter == "path" && more.value != "" {
				file = more.setting
			}
		}
	}
	switch {
	case file.value != "":
		audience, found := volumeOf(pod, func(m corev1.VolumeMount, token string) bool {
			return path.Join(m.MountPath, token) == path.Clean(file.value)
		})
		if !found && path.Clean(file.value) != defaultTokenFile {
			w.impossible("%s: no container of the pod has a service account token there, and other files are not read: name the "+
				"file of a projected service account token, or remove it", file.annotation)
			return ""
		}
		file.value = audience
		return take(file, "audience")
	case w.tokenVolume.value != "":
		for _, v := range pod.Spec.Volumes {
			if v.Name != w.tokenVolume.value {
				continue
			}
			token := projectedToken(v)
			if token == nil {
				w.deny("%s: volume %s projects no service account token: name one that does, or remove it",
					w.tokenVolume.annotation, quote(v.Name))
				return ""
			}
			found := w.tokenVolume
			found.value = token.Audience
			return take(found, "audience")
		}
		w.deny("%s: the pod has no volume %s: name one of its volumes that projects a service account token, or remove it",
			w.tokenVolume.annotation, quote(w.tokenVolume.value))
		return ""
	}
	audience, _ := volumeOf(pod, func(m corev1.VolumeMount, _ string) bool {
		return strings.Contains(m.MountPath, "serviceaccount")
	})
	return audience
}

// defaultTokenFile is where every pod has the token for the API server.
const defaultTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // the name of a file

// volumeOf returns the audience of the first projected service account token whose mount in a container fits.
func volumeOf(pod *corev1.Pod, fits func(mount corev1.VolumeMount, token string) bool) (audience string, found bool) {
	for _, c := range pod.Spec.Containers {
		for _, m := range c.VolumeMounts {
			for _, v := range pod.Spec.Volumes {
				if v.Name != m.Name {
					continue
				}
				if token := projectedToken(v); token != nil && fits(m, token.Path) {
					return token.Audience, true
				}
			}
		}
	}
	return "", false
}

func projectedToken(v corev1.Volume) *corev1.ServiceAccountTokenProjection {
	if v.Projected == nil {
		return nil
	}
	for _, source := range v.Projected.Sources {
		if source.ServiceAccountToken != nil {
			return source.ServiceAccountToken
		}
	}
	return nil
}

// checkTLS returns the Secret of the connection's TLS material. The agent sees it at /vault/tls, where the other
// annotations name its files; the provider takes them by their usual names.
func (w *wish) checkTLS() string {
	name := w.tlsSecret.value
	if name != "" {
		if faults := validation.IsDNS1123Subdomain(name); len(faults) > 0 {
			w.deny("%s: %s is not the name of a Secret: write one of the pod's namespace", w.tlsSecret.annotation, quote(name))
		}
	}
	for _, use := range []struct {
		setting
		key string
	}{{w.caCert, "ca.crt"}, {w.clientCert, "tls.crt"}, {w.clientKey, "tls.key"}} {
		switch {
		case use.value == "":
		case name == "":
			w.impossible("%s: it names a file in the agent's container, and there is none: put the file as %s into a Secret, name "+
				"it with tls-secret, and remove the annotation", use.annotation, use.key)
		case path.Clean(use.value) != "/vault/tls/"+use.key:
			w.impossible("%s: of the Secret that tls-secret names, only ca.crt, tls.crt and tls.key are used: put the file into it "+
				"as %s, and write /vault/tls/%[2]s", use.annotation, use.key)
		}
	}
	return name
}
