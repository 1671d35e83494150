{{- define "frs.name" -}}
{{- contains "frs" .Release.Name | ternary .Release.Name (printf "%s-frs" .Release.Name) | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* Labels of an object; argument: dict "root" $ "component" NAME. */}}
{{- define "frs.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "frs.selector" . }}
{{- end }}

{{- define "frs.selector" -}}
app.kubernetes.io/name: frs
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "frs.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "frs.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "frs.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false # a service whose name begins with frs would set variables that look like settings
securityContext:
  {{- include "frs.podSecurity" . | nindent 2 }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "frs.env" -}}
envFrom:
  - secretRef:
      name: {{ .Values.existingSecret }}
env:
  - {name: FRS_DATA, value: /data}
  - {name: FRS_DATASETS_ROOT, value: /datasets}
  - {name: FRS_MODELS_ROOT, value: /models}
  {{- range $name, $value := .Values.config }}
  - name: {{ $name }}
    value: {{ $value | quote }}
  {{- end }}
{{- end }}

{{- define "frs.mounts" -}}
- {name: data, mountPath: /data}
- {name: tmp, mountPath: /tmp}
- {name: datasets, mountPath: /datasets, readOnly: true}
- {name: models, mountPath: /models, readOnly: true}
{{- end }}

{{/* Volumes of API and workers, without `data`. */}}
{{- define "frs.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 1Gi}
{{- range $name := list "datasets" "models" }}
{{- $claim := index $.Values $name }}
- name: {{ $name }}
  {{- if $claim.existingClaim }}
  persistentVolumeClaim: {claimName: {{ $claim.existingClaim }}, readOnly: true}
  {{- else if $claim.create }}
  persistentVolumeClaim: {claimName: {{ include "frs.name" $ }}-{{ $name }}, readOnly: true}
  {{- else }}
  emptyDir: {sizeLimit: 1Mi}
  {{- end }}
{{- end }}
{{- end }}

{{/* Fewest GPUs of a job for this class: more than the next smaller class has. Argument: dict "root" $ "gpus" N. */}}
{{- define "frs.atLeast" -}}
{{- $least := 0 }}
{{- range .root.Values.workers.classes }}
{{- if lt (int .gpus) (int $.gpus) }}{{ $least = max $least (add1 (int .gpus)) }}{{ end }}
{{- end }}
{{- $least }}
{{- end }}
