"""Safety: who labels the answers to safety prompts, and the scores that follow from the labels.

Answers are labelled by a judge (`judges`, `run`) and scored from the labels (`settle`); each step leaves files, so that
another judge or another way of counting asks no model again.
"""

from mergebench.evaluation.safety import judges as judges
from mergebench.evaluation.safety.labels import Judge as Judge
from mergebench.evaluation.safety.labels import Label as Label
from mergebench.evaluation.safety.labels import Request as Request
from mergebench.evaluation.safety.labels import read_labels as read_labels
from mergebench.evaluation.safety.labels import request_of as request_of
from mergebench.evaluation.safety.labels import write_labels as write_labels
from mergebench.evaluation.safety.remembering import Remembering as Remembering
from mergebench.evaluation.safety.scoring import label as label
from mergebench.evaluation.safety.scoring import settle as settle
from mergebench.evaluation.safety.scoring import settle_with as settle_with
