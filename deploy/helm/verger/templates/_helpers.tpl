{{- define "verger.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "verger.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "verger.selector" -}}
app.kubernetes.io/name: verger
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "verger.labels" -}}
{{ include "verger.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "verger.peers" -}}
{{ include "verger.name" . }}-peers.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- /* Every coordinator's interface by its own name: whoever is asked leads on to the leader, and a token goes to these alone. */ -}}
{{- define "verger.addresses" -}}
{{- $all := list -}}
{{- range $ordinal := until (int .Values.coordinators.replicas) -}}
{{- $all = append $all (printf "https://%s-coordinator-%d.%s:7420" (include "verger.name" $) $ordinal (include "verger.peers" $)) -}}
{{- end -}}
{{ join "," $all }}
{{- end }}

{{- define "verger.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "verger.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "verger.tracing" -}}
{{- if .Values.tracing.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .Values.tracing.endpoint | quote }}
{{- end }}
{{- end }}

{{- /* What coordinators' command line needs, in both containers of the pod. */ -}}
{{- define "verger.coordinatorEnv" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: VERGER_DATA_DIR
  value: /var/lib/verger
- name: VERGER_PEER_ADDRESS
  value: $(POD_NAME).{{ include "verger.peers" . }}:7421
- name: VERGER_API_ADDRESS
  value: https://$(POD_NAME).{{ include "verger.peers" . }}:7420
- name: VERGER_ADDR
  value: {{ include "verger.addresses" . | quote }}
- name: VERGER_CA_FILE
  value: /etc/verger/api/ca.crt
- name: VERGER_TOKEN_FILE
  value: /etc/verger/owner/verger/tokens/0.0.0.0_7420
- name: XDG_CONFIG_HOME
  value: /etc/verger/owner
- name: VERGER_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- end }}

{{- define "verger.passwords" -}}
{{- if .Values.secrets.passwords -}}
secret: { secretName: {{ .Values.secrets.passwords }}, defaultMode: 0440, optional: true }
{{- else -}}
emptyDir: { sizeLimit: 1Mi }
{{- end -}}
{{- end }}

{{- /* Names, stores, NATS, traces. */ -}}
{{- define "verger.egress" -}}
{{- $policy := .Values.networkPolicy -}}
- ports:
    - { protocol: UDP, port: 53 }
    - { protocol: TCP, port: 53 }
- ports:
    {{- range $policy.storePorts }}
    - { protocol: TCP, port: {{ . }} }
    {{- end }}
  {{- with $policy.storesTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if .Values.nats.urls }}
- ports:
    - { protocol: TCP, port: {{ $policy.natsPort }} }
  {{- with $policy.natsTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- if .Values.tracing.endpoint }}
- ports:
    - { protocol: TCP, port: {{ $policy.tracesPort }} }
  {{- with $policy.tracesTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
