"""Why a run cannot start or did not end by itself: Job, Pod and events in, a Diagnosis out. Pure.

`start` says what a run that does not run waits for and since when, `end` how it ended; `model` has
the words of both.
"""

from mlflow_backend.places.kubernetes.diagnose.end import STOPPED as STOPPED
from mlflow_backend.places.kubernetes.diagnose.end import created_pods as created_pods
from mlflow_backend.places.kubernetes.diagnose.end import ended as ended
from mlflow_backend.places.kubernetes.diagnose.end import left_over_s as left_over_s
from mlflow_backend.places.kubernetes.diagnose.end import may_retry as may_retry
from mlflow_backend.places.kubernetes.diagnose.end import overdue as overdue
from mlflow_backend.places.kubernetes.diagnose.end import told_by_runner as told_by_runner
from mlflow_backend.places.kubernetes.diagnose.model import Trouble as Trouble
from mlflow_backend.places.kubernetes.diagnose.model import has_started as has_started
from mlflow_backend.places.kubernetes.diagnose.model import is_over as is_over
from mlflow_backend.places.kubernetes.diagnose.model import lingers as lingers
from mlflow_backend.places.kubernetes.diagnose.start import cannot_start as cannot_start
from mlflow_backend.places.kubernetes.diagnose.start import not_started as not_started
from mlflow_backend.places.kubernetes.diagnose.start import waiting_for as waiting_for
