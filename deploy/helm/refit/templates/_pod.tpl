{{/* What the pods of this chart have alike. The dict is that of "refit.args". */}}
{{- define "refit.podCommon" -}}
{{- $v := .root.Values -}}
serviceAccountName: {{ include "refit.serviceAccount" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
# 20 s more than --grace, for the metrics' web server and the spool.
terminationGracePeriodSeconds: {{ add .of.grace 20 }}
securityContext:
  {{- include "refit.podSecurity" $v.user | nindent 2 }}
{{- with $v.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .of.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .of.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if eq .role "server" }}{{- with .of.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}{{- end }}
{{- with .of.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "refit.server.volumes" -}}
{{- include "refit.secretsVolume" . }}
{{- include "refit.settingsVolume" . }}
{{- with .of.spool }}
{{- if and .enabled .existingClaim }}
- {name: refit-spool, persistentVolumeClaim: {claimName: {{ .existingClaim }}}}
{{- end }}
{{- end }}
{{- end -}}
