{{/* What a container of ours mounts, and the volumes for it. The dict is that of "refit.args". */}}

{{- define "refit.mounts" -}}
{{- if include "refit.secretSources" . }}
- {name: refit-secrets, mountPath: /etc/refit, readOnly: true}
{{- end }}
{{- if .of.settings }}
- {name: refit-settings, mountPath: /etc/refit-settings, readOnly: true}
{{- end }}
{{- if .socket }}
- {name: refit-socket, mountPath: /run/refit}
{{- end }}
{{- if .spool }}
- {name: refit-spool, mountPath: /var/lib/refit}
{{- end }}
{{- end -}}

{{/* Closed to others; fsGroup makes the files 0440 of the group. Whole files, never a subPath: renewed ones come through. */}}
{{- define "refit.secretsVolume" -}}
{{- $sources := include "refit.secretSources" . | trim -}}
{{- with $sources }}
- name: refit-secrets
  projected:
    defaultMode: 0400
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "refit.secretSources" -}}
{{- $v := .root.Values -}}
{{- $tls := and .tcp (include "refit.tlsSecret" .root) -}}
{{- $own := $tls -}}
{{- if and $tls (eq .role "relay") }}{{ $own = include "refit.relayTlsSecret" .root }}{{ end -}}
{{- with $own }}
- secret:
    name: {{ . }}
    items:
      - {key: tls.crt, path: tls.crt}
      - {key: tls.key, path: tls.key}
      {{- if $v.tls.mutual }}
      - {key: ca.crt, path: ca.crt}
      {{- end }}
{{- end }}
{{- if and $tls $v.auth.rolesSecret }}
- secret: {name: {{ $v.auth.rolesSecret }}, items: [{key: roles, path: roles}]}
{{- end }}
{{- if and $tls $v.auth.tokensSecret }}
- secret: {name: {{ $v.auth.tokensSecret }}, items: [{key: tokens, path: tokens}]}
{{- end }}
{{- if eq .role "relay" }}
{{- with $v.relay.upstreamTlsSecret | default (include "refit.relayTlsSecret" .root) }}
- secret:
    name: {{ . }}
    items:
      - {key: ca.crt, path: upstream/ca.crt}
      {{- if or $v.relay.upstreamTlsSecret $v.tls.mutual }}
      - {key: tls.crt, path: upstream/tls.crt}
      - {key: tls.key, path: upstream/tls.key}
      {{- end }}
{{- end }}
{{- with $v.relay.upstreamTokenSecret }}
- secret: {name: {{ . }}, items: [{key: token, path: upstream/token}]}
{{- end }}
{{- end }}
{{- end -}}
