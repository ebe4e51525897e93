{{/* What the pods of the exporter and of `helm test` have in common. */}}

{{- define "exporter.podSpec" -}}
serviceAccountName: {{ include "exporter.serviceAccountName" . | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "exporter.set" (list .Values "imagePullSecrets" "initContainers" "hostAliases" "nodeSelector" "tolerations" "affinity" "topologySpreadConstraints" "priorityClassName" "dnsPolicy" "dnsConfig") | nindent 0 }}
{{- if and (include "exporter.database" .) (not .Values.topologySpreadConstraints) }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "exporter.selectorLabels" . | nindent 8 }}
{{- end }}
{{- end }}

{{/* Where the password of the database is, and how the exporter comes by its URL. */}}
{{- define "exporter.env" -}}
{{- $state := .Values.config.state | default dict }}
{{- with .Values.state }}
{{- if and .existingSecret (not $state.url) }}
- name: CWE_STATE__URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret | quote }}
      key: {{ .urlKey | quote }}
{{- else if and .existingSecret (not $state.password_file) }}
- name: CWE_STATE__PASSWORD_FILE
  value: {{ printf "/run/secrets/state/%s" .passwordKey | quote }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "exporter.container" -}}
image: {{ include "exporter.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with include "exporter.env" . | trim }}
env:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- include "exporter.set" (list .Values "resources" "securityContext") | nindent 0 }}
{{- end }}

{{/* Without a configuration, the exporter watches the account of its environment. */}}
{{- define "exporter.configArgs" -}}
{{- if .Values.config }}
- --config.file=/etc/cloudflare-workflows-exporter/config.yaml
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The volumes of configuration and credentials, and further ones. */}}
{{- define "exporter.volumes" -}}
{{- if .Values.config }}
- name: config
  configMap:
    name: {{ include "exporter.fullname" . | quote }}
{{- end }}
{{- with include "exporter.secretName" . }}
- name: credentials
  secret:
    secretName: {{ . | quote }}
    # Its group, fsGroup, may read it.
    defaultMode: 0440
{{- end }}
{{- with .Values.state.existingSecret }}
- name: database
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.webConfig.existingSecret }}
- name: web
  secret:
    secretName: {{ . | quote }}
    defaultMode: 0440
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "exporter.volumeMounts" -}}
{{- if .Values.config }}
- name: config
  mountPath: /etc/cloudflare-workflows-exporter
  readOnly: true
{{- end }}
{{- if include "exporter.secretName" . }}
- name: credentials
  mountPath: {{ .Values.credentials.mountPath | quote }}
  readOnly: true
{{- end }}
{{- if .Values.state.existingSecret }}
- name: database
  mountPath: /run/secrets/state
  readOnly: true
{{- end }}
{{- if .Values.webConfig.existingSecret }}
- name: web
  mountPath: /run/secrets/web
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* How a probe requests a path. */}}
{{- define "exporter.probe" -}}
{{- with .root.Values.webConfig }}
{{- if eq .probes "tcp" }}
tcpSocket:
  port: metrics
{{- else }}
httpGet:
  path: {{ $.path }}
  port: metrics
  {{- if eq .probes "https" }}
  scheme: HTTPS
  {{- end }}
  {{- with .probeHeaders }}
  httpHeaders:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}
