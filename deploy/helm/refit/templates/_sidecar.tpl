{{/*
For pods of your own, in a chart that has this one as a dependency (examples/one-trainer does it):

  initContainers:
    {{- include "refit.sidecar.relay" .Subcharts.refit | nindent 4 }}
  containers:
    - volumeMounts: [{name: refit-socket, mountPath: /run/refit}]       address: unix:/run/refit/refit.sock
  volumes:
    {{- include "refit.sidecar.relay.volumes" .Subcharts.refit | nindent 4 }}

and "refit.sidecar.server", "refit.sidecar.server.volumes" beside a trainer. The pod needs securityContext.fsGroup, the
value of `user`, so that the sidecar may read its Secrets.
*/}}

{{- define "refit.sidecar.server" -}}
{{- include "refit.check" . -}}
{{- $spool := .Values.server.spool.enabled -}}
{{- $instance := dict "root" . "role" "server" "of" .Values.server "name" "refit-server" "tcp" true "socket" true "spool" $spool "zone" .Values.server.zone "ready" true -}}
- restartPolicy: Always
  {{- include "refit.container" $instance | nindent 2 }}
{{- end -}}

{{- define "refit.sidecar.server.volumes" -}}
{{- $instance := dict "root" . "role" "server" "of" .Values.server "tcp" true }}
{{- include "refit.secretsVolume" $instance }}
{{- include "refit.settingsVolume" $instance }}
- {name: refit-socket, emptyDir: {}}
{{- with .Values.server.spool }}
{{- if and .enabled .existingClaim }}
- {name: refit-spool, persistentVolumeClaim: {claimName: {{ .existingClaim }}}}
{{- else if .enabled }}
- {name: refit-spool, emptyDir: {sizeLimit: {{ .size }}}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "refit.sidecar.relay" -}}
{{- include "refit.check" . -}}
{{- $upstream := include "refit.upstream" . | fromJsonArray -}}
{{- $instance := dict "root" . "role" "relay" "of" .Values.relay "name" "refit-relay" "socket" true "upstream" $upstream "identity" "$(POD_NAME)" -}}
- restartPolicy: Always
  {{- include "refit.container" $instance | nindent 2 }}
{{- end -}}

{{- define "refit.sidecar.relay.volumes" -}}
{{- $instance := dict "root" . "role" "relay" "of" .Values.relay }}
{{- include "refit.secretsVolume" $instance }}
{{- include "refit.settingsVolume" $instance }}
- {name: refit-socket, emptyDir: {}}
{{- end -}}
