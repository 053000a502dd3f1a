{{/* A container that runs refit-server, without rights. The dict is that of "refit.args". */}}
{{- define "refit.container" -}}
{{- $v := .root.Values -}}
name: {{ .name }}
image: {{ include "refit.image" .root }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args:
  {{- include "refit.args" . | trim | nindent 2 }}
{{- $env := include "refit.env" . | trim }}
{{- with $env }}
env:
  {{- . | nindent 2 }}
{{- end }}
ports:
  {{- if .tcp }}
  - {name: grpc, containerPort: {{ $v.ports.grpc }}}
  {{- end }}
  - {name: health, containerPort: {{ $v.ports.health }}}
  {{- if $v.metrics.enabled }}
  - {name: metrics, containerPort: {{ $v.ports.metrics }}}
  {{- end }}
startupProbe:
  grpc: {port: {{ $v.ports.health }}}
  periodSeconds: 1
  timeoutSeconds: 5
  failureThreshold: {{ .of.startup }}
{{- if .ready }}
readinessProbe:
  grpc: {port: {{ $v.ports.health }}, service: refit.v1.PullService}
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
# Patient: a restart costs more than a slow answer. The service ends by itself if it accepts no connection.
livenessProbe:
  grpc: {port: {{ $v.ports.health }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
resources:
  requests: {cpu: {{ .of.cpu | quote }}, memory: {{ include "refit.totalMemory" .of }}}
  limits: {memory: {{ include "refit.totalMemory" .of }}}
securityContext:
  {{- include "refit.containerSecurity" $v.user | nindent 2 }}
{{- $mounts := include "refit.mounts" . | trim }}
{{- with $mounts }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "refit.containerSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Secrets and the spool belong to the group. */}}
{{- define "refit.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "refit.env" -}}
{{- if eq .role "relay" }}
- {name: NODE_NAME, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
{{- end }}
{{- end -}}
