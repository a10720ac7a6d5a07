{{- define "pipeline.name" -}}
{{- $name := .Release.Name -}}
{{- if gt (len $name) 52 }}{{ fail "the release name may have 52 characters at most: pods and revisions add to it" }}{{ end -}}
{{- $name -}}
{{- end }}

{{- define "pipeline.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pipeline.labels" -}}
{{ include "pipeline.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "pipeline.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "pipeline.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "pipeline.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "pipeline.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
# The worker's directories stay closed to the group; a change of every mode at each start would open them.
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "pipeline.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The variables that reach Kafka, for workers and for the topics job. */}}
{{- define "pipeline.kafkaEnv" -}}
- name: PIPELINE_KAFKA
  value: {{ .Values.kafka.bootstrapServers | quote }}
{{- range $property, $value := .Values.kafka.properties }}
- name: PIPELINE_KAFKA_{{ $property | upper | replace "." "_" }}
  value: {{ $value | quote }}
{{- end }}
{{- with .Values.kafka.credentials }}
{{- if .secretName }}
{{- range $property, $key := .keys }}
- name: PIPELINE_KAFKA_{{ $property | upper | replace "." "_" }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.kafka.credentials.secretName }}
      key: {{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.kafka.ca.secretName }}
- name: PIPELINE_KAFKA_SSL_CA_LOCATION
  value: /etc/pipeline/kafka/ca.crt
{{- end }}
{{- end }}

{{- define "pipeline.kafkaVolumes" -}}
- name: tmp
  emptyDir: {}
{{- if .Values.kafka.ca.secretName }}
- name: kafka-ca
  secret:
    secretName: {{ .Values.kafka.ca.secretName }}
    items:
      - key: {{ .Values.kafka.ca.key }}
        path: ca.crt
{{- end }}
{{- end }}

{{- define "pipeline.kafkaMounts" -}}
- name: tmp
  mountPath: /tmp
{{- if .Values.kafka.ca.secretName }}
- name: kafka-ca
  mountPath: /etc/pipeline/kafka
  readOnly: true
{{- end }}
{{- end }}
