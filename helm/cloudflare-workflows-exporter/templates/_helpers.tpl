{{/* The chart's name, as a label. */}}
{{- define "exporter.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The same for the pod of `helm test`. */}}
{{- define "exporter.checkName" -}}
{{- printf "%s-check" (include "exporter.name" . | trunc 57 | trimSuffix "-") }}
{{- end }}

{{/* The name of all objects. A StatefulSet's pods get a suffix, and their revision label has to fit into 63. */}}
{{- define "exporter.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimAll "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | replace "." "-" | trunc 50 | trimAll "-" }}
{{- end }}
{{- end }}

{{- define "exporter.namespace" -}}
{{- .Values.namespaceOverride | default .Release.Namespace }}
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

{{/* An object's metadata. Call with a dict of root and, where they differ, name or suffix of the name, namespace,
labels, annotations. */}}
{{- define "exporter.metadata" -}}
name: {{ .name | default (printf "%s%s" (include "exporter.fullname" .root) (.suffix | default "")) | quote }}
namespace: {{ .namespace | default (include "exporter.namespace" .root) | quote }}
labels:
  {{- include "exporter.labels" (dict "root" .root "labels" .labels) | nindent 2 }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Those of the keys whose values aren't empty. Call with a list: the values, then the keys. */}}
{{- define "exporter.set" -}}
{{- $values := first . }}
{{- $set := dict }}
{{- range $key := rest . }}
{{- with get $values $key }}
{{- $_ := set $set $key . }}
{{- end }}
{{- end }}
{{- if $set }}
{{- toYaml $set }}
{{- end }}
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

{{/* Whether the state is in a database, which replicas share; empty: it is in a file. */}}
{{- define "exporter.database" -}}
{{- if or .Values.state.existingSecret (.Values.config.state | default dict).url }}true{{ end }}
{{- end }}

{{- define "exporter.workload" -}}
{{- ternary "Deployment" "StatefulSet" (ne (include "exporter.database" .) "") }}
{{- end }}

{{/* What the schema can't say, in words. */}}
{{- define "exporter.validate" -}}
{{- $values := .Values }}
{{- if not (regexMatch "^[a-z]" (include "exporter.fullname" .)) }}
{{- fail (printf "\nA Service can't be called %q: set fullnameOverride to a name that starts with a letter" (include "exporter.fullname" .)) }}
{{- end }}
{{- if not (or (dig "accounts" list $values.config) (and (empty $values.config) (or $values.extraEnv $values.extraEnvFrom))) }}
{{- fail "\nconfig.accounts is empty: say which accounts and workflows to watch, as in config.example.yaml; or leave config out altogether, and give CLOUDFLARE_API_TOKEN and CLOUDFLARE_ACCOUNT_ID in extraEnvFrom, to watch every workflow of that account" }}
{{- end }}
{{- range $index, $account := $values.config.accounts }}
{{- range $place, $keys := dict "" $account ".events" ($account.events | default dict) }}
{{- $place = printf "config.accounts[%d]%s" $index $place }}
{{- range $key, $file := dict "api_token" "api_token_file" "api_key" "api_key_file" }}
{{- if hasKey $keys $key }}
{{- fail (printf "\n%s.%s would be readable in a ConfigMap: put it into a Secret, name that in credentials.existingSecret, and write %s: %s/KEY" $place $key $file $values.credentials.mountPath) }}
{{- end }}
{{- end }}
{{- range $key := list "api_token_file" "api_key_file" }}
{{- $path := get $keys $key }}
{{- if and $path (hasPrefix (printf "%s/" $values.credentials.mountPath) $path) }}
{{- if not (include "exporter.secretName" $) }}
{{- fail (printf "\n%s.%s is %s, but nothing is mounted there: name your Secret in credentials.existingSecret" $place $key $path) }}
{{- end }}
{{- if and $values.credentials.files (not (hasKey $values.credentials.files (base $path))) }}
{{- fail (printf "\n%s.%s is %s, but credentials.files has no %q" $place $key $path (base $path)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if and $values.credentials.existingSecret $values.credentials.files }}
{{- fail "\ncredentials: give existingSecret or files, not both" }}
{{- end }}
{{- if and (gt (int $values.replicaCount) 1) (not (include "exporter.database" .)) }}
{{- fail (printf "\nreplicaCount is %d, but each pod would have a state of its own and count everything: replicas share a PostgreSQL database; name the Secret with its URL in state.existingSecret (docs/kubernetes.md)" (int $values.replicaCount)) }}
{{- end }}
{{- $state := $values.config.state | default dict }}
{{- if regexMatch "://[^/?]*:[^/?]*@|[?&](ssl)?password=" ($state.url | default "") }}
{{- fail "\nconfig.state.url has a password, which would be readable in a ConfigMap: leave it out, put it into a Secret under the key state.passwordKey, and name that in state.existingSecret" }}
{{- end }}
{{- if and (hasPrefix "/run/secrets/state/" ($state.password_file | default "")) (not $values.state.existingSecret) }}
{{- fail (printf "\nconfig.state.password_file is %s, but nothing is mounted there: name your Secret in state.existingSecret" $state.password_file) }}
{{- end }}
{{- if and (eq $values.webConfig.probes "https") (not $values.webConfig.existingSecret) }}
{{- fail "\nwebConfig.probes is https, but there is no TLS: name your Secret in webConfig.existingSecret" }}
{{- end }}
{{- $scrapes := list }}
{{- range list "serviceMonitor" "podMonitor" "scrapeConfig" }}
{{- if (get $values .).enabled }}
{{- $scrapes = append $scrapes . }}
{{- end }}
{{- end }}
{{- if gt (len $scrapes) 1 }}
{{- fail (printf "\n%s are enabled: every sample would be there twice; enable one" (join " and " $scrapes)) }}
{{- end }}
{{- if and $values.ingress.enabled (not $values.ingress.hosts) }}
{{- fail "\ningress.hosts is empty: name the hosts, or the page would be served under every name" }}
{{- end }}
{{- if and $values.httpRoute.enabled (not $values.httpRoute.parentRefs) }}
{{- fail "\nhttpRoute.parentRefs is empty: name the Gateway" }}
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
