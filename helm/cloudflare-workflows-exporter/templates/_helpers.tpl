{{/* The chart's name, as a label. */}}
{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The name of all objects. A StatefulSet's pods get a suffix, and their revision label has to fit into 63. */}}
{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "exporter.selectorLabels" -}}
app.kubernetes.io/name: {{ include "exporter.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Labels of every object; the chart's own beat commonLabels. Call with the root, or a dict of root and more labels. */}}
{{- define "exporter.labels" -}}
{{- $root := .root | default . -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" (include "exporter.version" $root)
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- toYaml (merge (include "exporter.selectorLabels" $root | fromYaml) $own (.labels | default dict) $root.Values.commonLabels) }}
{{- end }}

{{/* What a label may hold of the image's tag. */}}
{{- define "exporter.version" -}}
{{- .Values.image.tag | default .Chart.AppVersion | trunc 63 | trimAll "-_." }}
{{- end }}

{{- define "exporter.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{- define "exporter.serviceAccountName" -}}
{{- .Values.serviceAccount.name | default (ternary (include "exporter.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}

{{- define "exporter.secretName" -}}
{{- .Values.credentials.existingSecret | default (ternary (printf "%s-credentials" (include "exporter.fullname" .)) "" (not (empty .Values.credentials.files))) }}
{{- end }}

{{/* An endpoint of a ServiceMonitor or PodMonitor. */}}
{{- define "exporter.scrapeEndpoint" -}}
port: metrics
path: /metrics
{{- with .interval }}
interval: {{ . }}
{{- end }}
{{- with .scrapeTimeout }}
scrapeTimeout: {{ . }}
{{- end }}
{{- with .scheme }}
scheme: {{ . }}
{{- end }}
{{- with .tlsConfig }}
tlsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .basicAuth }}
basicAuth:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .relabelings }}
relabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .metricRelabelings }}
metricRelabelings:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How a probe asks for a path. */}}
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

{{/* What the schema can't say, in words. */}}
{{- define "exporter.validate" -}}
{{- $values := .Values }}
{{- if not (regexMatch "^[a-z]" (include "exporter.fullname" .)) }}
{{- fail (printf "\nA Service can't be called %q: set fullnameOverride to a name that starts with a letter" (include "exporter.fullname" .)) }}
{{- end }}
{{- if not (dig "accounts" list $values.config) }}
{{- fail "\nconfig.accounts is empty: say which accounts and workflows to watch, as in config.example.yaml" }}
{{- end }}
{{- range $index, $account := $values.config.accounts }}
{{- range $key, $file := dict "api_token" "api_token_file" "api_key" "api_key_file" }}
{{- if hasKey $account $key }}
{{- fail (printf "\nconfig.accounts[%d].%s would be readable in a ConfigMap: put it into a Secret, name that in credentials.existingSecret, and write %s: %s/KEY" $index $key $file $values.credentials.mountPath) }}
{{- end }}
{{- end }}
{{- range $key := list "api_token_file" "api_key_file" }}
{{- $path := get $account $key }}
{{- if and $path (hasPrefix (printf "%s/" $values.credentials.mountPath) $path) }}
{{- if not (include "exporter.secretName" $) }}
{{- fail (printf "\nconfig.accounts[%d].%s is %s, but nothing is mounted there: name your Secret in credentials.existingSecret" $index $key $path) }}
{{- end }}
{{- if and $values.credentials.files (not (hasKey $values.credentials.files (base $path))) }}
{{- fail (printf "\nconfig.accounts[%d].%s is %s, but credentials.files has no %q" $index $key $path (base $path)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.credentials.existingSecret $values.credentials.files }}
{{- fail "\ncredentials: give existingSecret or files, not both" }}
{{- end }}
{{- if and (eq $values.webConfig.probes "https") (not $values.webConfig.existingSecret) }}
{{- fail "\nwebConfig.probes is https, but there is no TLS: name your Secret in webConfig.existingSecret" }}
{{- end }}
{{- if and $values.serviceMonitor.enabled $values.podMonitor.enabled }}
{{- fail "\nserviceMonitor and podMonitor are both enabled: every sample would be there twice" }}
{{- end }}
{{- $alerts := list }}
{{- range (fromYaml (.Files.Get "files/rules.yaml")).groups }}
{{- range .rules }}
{{- $alerts = append $alerts .alert }}
{{- end }}
{{- end }}
{{- range $values.prometheusRule.disabled }}
{{- if not (has . $alerts) }}
{{- fail (printf "\nprometheusRule.disabled: no alert %q; there are %s" . ($alerts | uniq | join ", ")) }}
{{- end }}
{{- end }}
{{- end }}
