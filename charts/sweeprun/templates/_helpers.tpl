{{- define "sweeprun.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "sweeprun.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sweeprun.labels" -}}
{{ include "sweeprun.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "sweeprun.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "sweeprun.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "sweeprun.image" -}}
{{- $name := .Values.image.repository -}}
{{- if .Values.image.registry -}}{{- $name = printf "%s/%s" .Values.image.registry $name -}}{{- end -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" $name .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end -}}

{{- /* Namespaces that are watched, as a JSON list; empty in cluster mode. */ -}}
{{- define "sweeprun.namespaces" -}}
{{- if .Values.watch.allNamespaces -}}
[]
{{- else -}}
{{- .Values.watch.namespaces | default (list .Release.Namespace) | uniq | toJson -}}
{{- end -}}
{{- end -}}

{{- /* The same as a label selector of namespaces; matches all in cluster mode. */ -}}
{{- define "sweeprun.watchedNamespaces" -}}
{{- if .Values.watch.allNamespaces -}}
{}
{{- else -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: In
    values: {{ include "sweeprun.namespaces" . }}
{{- end -}}
{{- end -}}

{{- /* Names of cluster-wide objects: two releases may share a name in two namespaces. */ -}}
{{- define "sweeprun.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "sweeprun.fullname" .) -}}
{{- end -}}

{{- /* What the operator does where SweepRuns are; every verb stands for a call that it makes. */ -}}
{{- define "sweeprun.rules" -}}
- apiGroups: [sweeprun.dev]
  resources: [sweepruns]
  verbs: [get, list, watch, delete]
- apiGroups: [sweeprun.dev]
  resources: [sweepruns/status]
  verbs: [update]
# Children name their SweepRun as an owner that blocks deletion.
- apiGroups: [sweeprun.dev]
  resources: [sweepruns/finalizers]
  verbs: [update]
- apiGroups: [kubeflow.org]
  resources: [pytorchjobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
# Only as a dry run, which says why a Job has no pod. Whoever may create Jobs can have any pod made anyway.
- apiGroups: [""]
  resources: [pods]
  verbs: [create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end -}}
