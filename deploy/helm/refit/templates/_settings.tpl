{{/* Settings beyond the chart's own: the file of refit-server --config. The dict is that of "refit.args". */}}
{{- define "refit.settingsName" -}}
{{ include "refit.fullname" .root | trunc 46 | trimSuffix "-" }}-{{ .role }}-settings
{{- end -}}

{{- define "refit.settingsVolume" -}}
{{- if .of.settings }}
- {name: refit-settings, configMap: {name: {{ include "refit.settingsName" . }}}}
{{- end }}
{{- end -}}

{{/* Annotations of pods. The settings are read at the start only: what changes them must restart the pod. */}}
{{- define "refit.podAnnotations" -}}
{{- $annotations := deepCopy .of.podAnnotations -}}
{{- if .of.settings -}}
{{- $_ := set $annotations "refit/settings" (toToml .of.settings | sha256sum) -}}
{{- end -}}
{{- with $annotations -}}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}
