{{- define "dormouse.labels" -}}
app.kubernetes.io/component: operator
{{ include "dormouse.commonLabels" . }}
{{- end }}

{{- define "dormouse.interceptor.labels" -}}
app.kubernetes.io/component: interceptor
{{ include "dormouse.commonLabels" . }}
{{- end }}

{{- define "dormouse.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/part-of: {{ .Values.operator.name }}
app.kubernetes.io/managed-by: {{ .Values.customManagedBy | default .Release.Service }}
app.kubernetes.io/version: {{ .Values.image.keda.tag | default .Chart.AppVersion | quote }}
{{- with .Values.additionalLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "dormouse.metadata" -}}
labels:
  app.kubernetes.io/name: {{ .name }}
  {{- include "dormouse.labels" .root | nindent 2 }}
{{- with .root.Values.additionalAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "dormouse.interceptor.metadata" -}}
labels:
  app.kubernetes.io/name: {{ .name }}
  {{- include "dormouse.interceptor.labels" .root | nindent 2 }}
{{- with .root.Values.additionalAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Metadata of an object that is there for the uninstall only: its turn, and when it goes. */ -}}
{{- define "dormouse.hook" -}}
labels:
  app.kubernetes.io/name: {{ .name }}
  {{- include "dormouse.labels" .root | nindent 2 }}
annotations:
  helm.sh/hook: pre-delete
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
  {{- with .root.Values.additionalAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "dormouse.image" -}}
{{- $registry := .Values.global.image.registry | default .Values.image.keda.registry -}}
{{- $name := printf "%s:%s" .Values.image.keda.repository (.Values.image.keda.tag | default .Chart.AppVersion) -}}
{{- if $registry -}}{{ $registry }}/{{ $name }}{{- else -}}{{ $name }}{{- end -}}
{{- end }}

{{- define "dormouse.serviceAccount" -}}
{{- .Values.serviceAccount.operator.name | default .Values.operator.name -}}
{{- end }}

{{- define "dormouse.interceptor.serviceAccount" -}}
{{- .Values.serviceAccount.interceptor.name | default .Values.interceptor.name -}}
{{- end }}

{{- define "dormouse.interceptor.subject" -}}
- kind: ServiceAccount
  name: {{ include "dormouse.interceptor.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* A Service of the HTTP add-on, by the part of its name that its chart lets users change. */ -}}
{{- define "dormouse.http.service" -}}
keda-add-ons-http-{{ . }}
{{- end }}

{{- /* The ConfigMap that holds the authorities of the operator's certificate, for interceptors to trust. */ -}}
{{- define "dormouse.authorities" -}}
kedaorg-ca
{{- end }}

{{- /* A value as text: empty where there is none, and numbers of a values file, which Helm reads as floats, without an exponent. */ -}}
{{- define "dormouse.text" -}}
{{- if kindIs "invalid" . -}}
{{- else if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}
{{- else -}}{{ . }}
{{- end -}}
{{- end }}

{{- /*
The interceptor's environment: its settings where they are set, then what the user adds. Of equal names the last is kept:
the API server refuses a list that has a name twice.
*/ -}}
{{- define "dormouse.interceptor.env" -}}
{{- $it := .Values.interceptor -}}
{{- $tls := $it.tls -}}
{{- $settings := dict
      "KEDA_HTTP_PROXY_PORT" $it.proxy.port
      "KEDA_HTTP_ADMIN_PORT" $it.admin.port
      "KEDA_HTTP_WATCH_NAMESPACE" (include "dormouse.watched" . | fromJsonArray | join ",")
      "KEDA_HTTP_READINESS_TIMEOUT" (include "dormouse.text" $it.readinessTimeout | default $it.replicas.waitTimeout)
      "KEDA_HTTP_REQUEST_TIMEOUT" $it.requestTimeout
      "KEDA_HTTP_RESPONSE_HEADER_TIMEOUT" $it.responseHeaderTimeout
      "KEDA_HTTP_CONNECT_TIMEOUT" $it.tcpConnectTimeout
      "KEDA_HTTP_SHUTDOWN_DELAY" $it.shutdownDelay
      "KEDA_HTTP_DRAIN_TIMEOUT" $it.drainTimeout
      "KEDA_HTTP_MAX_IDLE_CONNS" $it.maxIdleConns
      "KEDA_HTTP_MAX_IDLE_CONNS_PER_HOST" $it.maxIdleConnsPerHost
      "KEDA_HTTP_DIRECT_POD_ROUTING" $it.directPodRouting
      "KEDA_HTTP_COLD_START_MAX_PENDING_REQUESTS" $it.coldStart.maxPendingRequests
      "KEDA_HTTP_TLS_SKIP_VERIFY" ($tls.skipVerify | default "")
      "KEDA_HTTP_TLS_MIN_VERSION" $tls.minVersion
      "KEDA_HTTP_TLS_MAX_VERSION" $tls.maxVersion
      "KEDA_HTTP_TLS_CIPHER_SUITES" $tls.cipherSuites
      "KEDA_HTTP_TLS_CURVE_PREFERENCES" $tls.curvePreferences
      "KEDA_HTTP_TLS_CA_DIRS" ($tls.caDirs | default list | join ",") -}}
{{- if $tls.enabled -}}
{{- $settings = merge $settings (dict
      "KEDA_HTTP_PROXY_TLS_ENABLED" true
      "KEDA_HTTP_PROXY_TLS_PORT" $tls.port
      "KEDA_HTTP_PROXY_TLS_CERT_PATH" $tls.certPath
      "KEDA_HTTP_PROXY_TLS_KEY_PATH" $tls.keyPath) -}}
{{- end -}}
{{- $all := list (dict "name" "POD_NAME" "valueFrom" (dict "fieldRef" (dict "fieldPath" "metadata.name"))) -}}
{{- range $name, $value := $settings -}}
{{- with include "dormouse.text" $value -}}{{- $all = append $all (dict "name" $name "value" .) -}}{{- end -}}
{{- end -}}
{{- range $name, $value := $it.extraEnvs -}}
{{- if not (kindIs "invalid" $value) -}}{{- $all = append $all (dict "name" $name "value" (include "dormouse.text" $value)) -}}{{- end -}}
{{- end -}}
{{- $seen := dict -}}
{{- $kept := list -}}
{{- range concat $all ($it.env | default list) | reverse -}}
{{- if not (hasKey $seen .name) -}}
{{- $_ := set $seen .name true -}}
{{- $kept = prepend $kept . -}}
{{- end -}}
{{- end -}}
{{- toYaml $kept -}}
{{- end }}

{{- /* The interceptor's flags: those without a twin in the environment, and extraArgs, which come first: no flag may be given twice. */ -}}
{{- define "dormouse.interceptor.flags" -}}
{{- $it := .Values.interceptor -}}
{{- $log := .Values.logging.interceptor -}}
{{- /* The dot at the end saves the lookups of the resolver's search path. */ -}}
{{- $operators := printf "%s-demand.%s.svc.%s.:9091" .Values.operator.name .Release.Namespace .Values.clusterDomain -}}
{{- $flags := dict
      "zap-log-level" $log.level
      "zap-encoder" $log.format
      "zap-time-encoding" $log.timeEncoding
      "hosts-across-namespaces" $it.hostsAcrossNamespaces
      "operators" $operators
      "operators-name" (printf "%s.%s.svc" .Values.operator.name .Release.Namespace)
      "operators-ca-file" "/var/run/dormouse/authorities/ca.crt"
      "operators-token-file" "/var/run/dormouse/token/token" -}}
{{- range $flag, $value := $it.extraArgs -}}{{- $_ := set $flags $flag $value -}}{{- end -}}
{{- $all := list -}}
{{- range $flag, $value := $flags -}}
{{- if not (kindIs "invalid" $value) -}}{{- $all = append $all (printf "--%s=%s" $flag (include "dormouse.text" $value)) -}}{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end }}

{{- /* Where the Secret with the certificate is mounted; nothing where the user mounts something there, or wants no Secret. */ -}}
{{- define "dormouse.interceptor.certificate" -}}
{{- $it := .Values.interceptor -}}
{{- $path := dir $it.tls.certPath -}}
{{- $taken := list -}}
{{- range $it.extraVolumeMounts -}}{{- $taken = append $taken (.mountPath | trimSuffix "/") -}}{{- end -}}
{{- if and $it.tls.enabled $it.tls.certSecret (not (has $path $taken)) -}}{{ $path }}{{- end -}}
{{- end }}

{{- /* A PodMonitor for the pods whose label app is .name. */ -}}
{{- define "dormouse.podMonitor" -}}
{{- $root := .root -}}
apiVersion: monitoring.coreos.com/v1
kind: PodMonitor
metadata:
  name: {{ .name }}
  namespace: {{ .monitor.namespace | default $root.Release.Namespace }}
  labels:
    app.kubernetes.io/name: {{ .name }}
    {{- include .labels $root | nindent 4 }}
    {{- with .monitor.additionalLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  namespaceSelector:
    matchNames: [{{ $root.Release.Namespace }}]
  selector:
    matchLabels:
      app: {{ .name }}
  {{- with .monitor }}
  podMetricsEndpoints:
    - port: metrics
      {{- with .interval }}
      interval: {{ . }}
      {{- end }}
      {{- with .scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with .relabelings }}
      relabelings: {{ toJson . }}
      {{- end }}
      {{- with .metricRelabelings }}
      metricRelabelings: {{ toJson . }}
      {{- end }}
  {{- end }}
{{- end }}

{{- define "dormouse.subject" -}}
- kind: ServiceAccount
  name: {{ include "dormouse.serviceAccount" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{- /* The namespaces of watchNamespace as a JSON list; empty means the whole cluster. */ -}}
{{- define "dormouse.watched" -}}
{{- $found := list -}}
{{- range splitList "," (.Values.watchNamespace | default "") -}}
{{- with trim . -}}{{- $found = append $found . -}}{{- end -}}
{{- end -}}
{{- $found | uniq | toJson -}}
{{- end }}

{{- /* A Kind (Rollout) as the plural resource name RBAC wants; anything already lower-case passes through. */ -}}
{{- define "dormouse.resource" -}}
{{- if eq . (lower .) -}}{{ . }}
{{- else if regexMatch "[^aeiou]y$" (lower .) -}}{{ lower . | trimSuffix "y" }}ies
{{- else if regexMatch "(s|x|z|ch|sh)$" (lower .) -}}{{ lower . }}es
{{- else -}}{{ lower . }}s
{{- end -}}
{{- end }}

{{- /* "true" when reading Secrets is limited, so that no wildcard may hand the right out again. */ -}}
{{- define "dormouse.secretsRestricted" -}}
{{- with .Values.permissions.operator.restrict -}}
{{- if or .secret .namesAllowList -}}true{{- end -}}
{{- end -}}
{{- end }}

{{- /* Refuses what would be a promise this chart cannot keep. */ -}}
{{- define "dormouse.check" -}}
{{- if dig "networkPolicy" "enabled" false .Values.AsMap -}}
{{- fail "networkPolicy.enabled: this chart has no network policies yet; set it to false and bring your own through extraObjects" -}}
{{- end -}}
{{- if dig "opentelemetry" "operator" "enabled" false .Values.AsMap -}}
{{- fail "opentelemetry.operator.enabled: metrics are served to Prometheus only; set it to false" -}}
{{- end -}}
{{- with dig "http" "tlsCipherList" "" .Values.AsMap -}}
{{- fail "http.tlsCipherList: the cipher suites are fixed to those of TLS 1.2 and 1.3 that are considered safe; leave it empty" -}}
{{- end -}}
{{- if and .Values.certificates.certManager.enabled .Values.certificates.autoGenerated -}}
{{- fail "certificates.certManager.enabled needs certificates.autoGenerated: false; two owners of one Secret would fight" -}}
{{- end -}}
{{- with .Values.logging.operator.format -}}
{{- if not (has . (list "console" "json")) -}}{{- fail (printf "logging.operator.format is %q; accepted are console and json" .) -}}{{- end -}}
{{- end -}}
{{- end }}
