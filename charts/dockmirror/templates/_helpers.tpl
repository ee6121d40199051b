{{- define "dockmirror.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "dockmirror.selectorLabels" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "dockmirror.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "dockmirror.selectorLabels" . }}
{{- end -}}

{{- define "dockmirror.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ kindIs "string" .tag | ternary (.tag | default $.Chart.AppVersion) (int64 .tag) }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the "restricted" Pod Security Standard asks of a container. */}}
{{- define "dockmirror.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The files on a node belong to root; root's other rights are dropped. */}}
{{- define "dockmirror.nodeSecurityContext" -}}
{{- $base := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "runAsNonRoot" false "runAsUser" 0 "runAsGroup" 0 "capabilities" (dict "drop" (list "ALL")) "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- toYaml (mergeOverwrite $base (deepCopy .Values.nodes.securityContext)) -}}
{{- end -}}

{{/* Recognizes the files of this release on a node. */}}
{{- define "dockmirror.owner" -}}
the release {{ .Release.Name }} in {{ .Release.Namespace }}
{{- end -}}

{{/* Kubernetes tells pods the addresses of the Services of their namespace in variables with this beginning. */}}
{{- define "dockmirror.serviceVariable" -}}
{{- include "dockmirror.fullname" . | upper | replace "-" "_" -}}
{{- end -}}

{{- define "dockmirror.nodeMirror" -}}
{{- if eq .Values.nodes.mode "localhost" -}}
http://localhost:{{ .Values.nodes.localPort }}
{{- else if eq .Values.nodes.mode "address" -}}
{{ required "nodes.url is missing, which the mode \"address\" needs" .Values.nodes.url }}
{{- else -}}
{{- /* Such as tcp://10.43.0.7:8080 or tcp://[fd00::7]:8080. */ -}}
$({{ include "dockmirror.serviceVariable" . }}_PORT)
{{- end -}}
{{- end -}}

{{- define "dockmirror.nodePlacement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodes.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodes.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodes.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodes.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* The addresses of all pods, by the names that the headless Service gives them. */}}
{{- define "dockmirror.peers" -}}
{{- $name := include "dockmirror.fullname" . -}}
{{- range $number := until (int .Values.replicas) -}}
{{- if $number }} {{ end -}}
http://{{ $name }}-{{ $number }}.{{ $name }}-pods:8080
{{- end -}}
{{- end }}
