{{/* What a schema cannot say: values that do not go together. */}}
{{- define "refit.check" -}}
{{- $tls := include "refit.tlsSecret" . -}}
{{- $mutual := and $tls .Values.tls.mutual -}}
{{- if not (or $tls .Values.allowPlaintext) -}}
{{- fail "no TLS: set tls.secretName to a Secret with tls.crt, tls.key and ca.crt, or tls.certManager.enabled=true, or say allowPlaintext=true" -}}
{{- end -}}
{{- if and $tls .Values.allowPlaintext -}}
{{- fail "allowPlaintext=true and TLS do not go together: leave tls.secretName empty and tls.certManager off, or allowPlaintext false" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuer.name) -}}
{{- fail "tls.certManager.issuer.name is empty: name the Issuer or ClusterIssuer that signs" -}}
{{- end -}}
{{- if and .Values.auth.rolesSecret (not $mutual) -}}
{{- fail "auth.rolesSecret goes by names in clients' certificates: it needs TLS, with tls.mutual=true" -}}
{{- end -}}
{{- if and (or .Values.auth.tokensSecret .Values.relay.upstreamTokenSecret) (not $tls) -}}
{{- fail "tokens travel over TLS only: set tls.secretName or tls.certManager, or leave auth.tokensSecret and relay.upstreamTokenSecret empty" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled needs metrics.enabled=true" -}}
{{- end -}}
{{- if and .Values.metrics.enabled (ne .Values.listenHost "0.0.0.0") -}}
{{- fail "metrics are served over IPv4 only: with metrics.enabled=true leave listenHost at 0.0.0.0" -}}
{{- end -}}
{{- if and .Values.relay.enabled (not .Values.server.enabled) (not .Values.relay.upstream) -}}
{{- fail "relay.upstream is empty, and server.enabled is false: give the addresses that relays pull from, host:port" -}}
{{- end -}}
{{- end -}}
