{{/* Of the relays' DaemonSets alone. */}}

{{- define "refit.relay.volumes" -}}
{{- include "refit.secretsVolume" . }}
{{- include "refit.settingsVolume" . }}
{{- if .socket }}
- {name: refit-socket, hostPath: {path: {{ .of.socket.hostPath }}, type: DirectoryOrCreate}}
{{- end }}
{{- end -}}

{{/* The kubelet makes the folder as root's, and fsGroup does not reach a hostPath. */}}
{{- define "refit.relay.prepareSocket" -}}
name: prepare-socket
image: {{ include "refit.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
command: [install, -d, -m, "0755", -o, "{{ .Values.user }}", -g, "{{ .Values.user }}", /run/refit]
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 16Mi}
securityContext:
  runAsNonRoot: false
  runAsUser: 0
  runAsGroup: 0
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL], add: [CHOWN, FOWNER]}
  seccompProfile: {type: RuntimeDefault}
volumeMounts:
  - {name: refit-socket, mountPath: /run/refit}
{{- end -}}

{{/* The nodes of a zone, besides what the values ask for. */}}
{{- define "refit.relay.affinity" -}}
{{- $affinity := deepCopy .of.affinity -}}
{{- if .zone -}}
{{- $term := dict "matchExpressions" (list (dict "key" "topology.kubernetes.io/zone" "operator" "In" "values" (list .zone))) -}}
{{- $required := dict "requiredDuringSchedulingIgnoredDuringExecution" (dict "nodeSelectorTerms" (list $term)) -}}
{{- $_ := set $affinity "nodeAffinity" (mergeOverwrite (default dict $affinity.nodeAffinity) $required) -}}
{{- end -}}
{{- with $affinity }}
{{- toYaml . }}
{{- end }}
{{- end -}}
