{{/*
Flags of an instance, a list. In the dict: root (the chart's context), role (server or relay), of (the role's values),
and what this instance has: tcp, socket, upstream (a list), identity (of a relay: its name).
*/}}
{{- define "refit.args" -}}
{{- $v := .root.Values -}}
{{- $tls := and .tcp (include "refit.tlsSecret" .root) -}}
{{- with .upstream }}
- --upstream={{ join "," . }}
- --name={{ $.identity }}
{{- include "refit.upstreamSecurity" $ }}
{{- end }}
{{- with .zone }}
- --zone={{ . }}
{{- end }}
{{- if .tcp }}
- --listen={{ $v.listenHost }}:{{ $v.ports.grpc }}
{{- end }}
{{- if .socket }}
- --listen=unix:/run/refit/refit.sock
- --socket-mode={{ $v.socketMode }}
{{- end }}
- --health={{ $v.listenHost }}:{{ $v.ports.health }}
{{- if $v.metrics.enabled }}
- --metrics={{ $v.listenHost }}:{{ $v.ports.metrics }}
{{- end }}
{{- if or $v.metrics.enabled (and .tcp $v.allowPlaintext) }}
- --allow-plaintext
{{- end }}
{{- if $tls }}
- --tls-cert=/etc/refit/tls.crt
- --tls-key=/etc/refit/tls.key
{{- if $v.tls.mutual }}
- --tls-client-ca=/etc/refit/ca.crt
{{- end }}
{{- end }}
{{- if and $tls $v.auth.rolesSecret }}
- --roles=/etc/refit/roles
{{- end }}
{{- if and $tls $v.auth.tokensSecret }}
- --tokens=/etc/refit/tokens
{{- end }}
- --memory={{ .of.memory }}B
- --pack-memory={{ .of.packMemory }}B
- --delta-memory={{ .of.deltaMemory }}B
- --retain={{ .of.retain }}
{{- if .spool }}
- --spool=/var/lib/refit/spool
{{- if .of.spool.trust }}
- --trust-spool
{{- end }}
{{- end }}
- --grace={{ .of.grace }}
- --log-level={{ $v.log.level }}
- --log-format={{ $v.log.format }}
{{- if .of.settings }}
- --config=/etc/refit-settings/refit-server.toml
{{- end }}
{{- end -}}

{{/* How a relay shows itself to its upstream. */}}
{{- define "refit.upstreamSecurity" -}}
{{- $v := .root.Values -}}
{{- if or $v.relay.upstreamTlsSecret (include "refit.relayTlsSecret" .root) }}
- --upstream-tls-ca=/etc/refit/upstream/ca.crt
{{- if or $v.relay.upstreamTlsSecret $v.tls.mutual }}
- --upstream-tls-cert=/etc/refit/upstream/tls.crt
- --upstream-tls-key=/etc/refit/upstream/tls.key
{{- end }}
{{- end }}
{{- if $v.relay.upstreamTokenSecret }}
- --upstream-token-file=/etc/refit/upstream/token
{{- end }}
{{- end -}}

{{/* Where relays pull from. */}}
{{- define "refit.upstream" -}}
{{- if .Values.relay.upstream -}}
{{- .Values.relay.upstream | toJson -}}
{{- else -}}
{{- list (printf "%s.%s.svc:%d" (include "refit.fullname" .) .Release.Namespace (.Values.ports.grpc | int)) | toJson -}}
{{- end -}}
{{- end -}}
