{{/* Sizes. Kubernetes writes 16Gi, refit-server 16GiB. */}}

{{- define "refit.mebibytes" -}}
{{- if hasSuffix "Ti" . -}}
{{- mul (trimSuffix "Ti" . | int64) 1048576 -}}
{{- else if hasSuffix "Gi" . -}}
{{- mul (trimSuffix "Gi" . | int64) 1024 -}}
{{- else -}}
{{- trimSuffix "Mi" . | int64 -}}
{{- end -}}
{{- end -}}

{{/* All memory of an instance. The tensors lie in memfds, which count as the container's memory. */}}
{{- define "refit.totalMemory" -}}
{{- $total := 0 -}}
{{- range list .memory .packMemory .deltaMemory .overhead -}}
{{- $total = add $total (include "refit.mebibytes" . | int64) -}}
{{- end -}}
{{- $total }}Mi
{{- end -}}
