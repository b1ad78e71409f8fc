"""Classifiers on a few plain columns: what age, sex and site, or the size of a picture, tell by themselves.

They are the baselines that a network must beat, and the witnesses by which the audit finds shortcuts. Each fold's
cases are predicted by the better of two kinds of model, chosen inside its training part alone: regularised logistic
regression, and gradient boosting. Every class weighs the same, and so does every patient of a class, so the
probabilities assume equal class shares, as the network's do.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from osteoscope.evaluation.arrays import SMALLEST_PROBABILITY, checked_labels
from osteoscope.evaluation.intervals import Patients, group_patients

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from osteoscope.evaluation.arrays import FloatArray, IntArray

KNOTS = (0.05, 0.35, 0.65, 0.95)
"""Quantiles at which a numeric column's spline has its knots (Harrell, table 2.3)."""

STRENGTHS = (0.01, 0.1, 1.0)
"""Inverse strengths of the L2 penalty that the logistic regression is tried with, for standardised columns."""

INNER_FOLDS = 3
"""Folds in which the model is chosen."""

FEWEST_TO_CHOOSE = 4
"""With fewer patients of a class to learn from, nothing is chosen: logistic regression with `FIXED_STRENGTH`. The
same holds where a single categorical column is known, of which all models make the same."""

FIXED_STRENGTH = 0.1

FEWEST_TO_BOOST = 30
"""With fewer patients to learn from, boosting does not compete: its trees could hardly part them."""

_MOST_LEVELS = 50
"""Of a categorical column with more names, only the most frequent count."""

_BOOSTING = {
    "max_iter": 40,
    "learning_rate": 0.05,
    "max_leaf_nodes": 4,
    "min_samples_leaf": 10,
    "l2_regularization": 1.0,
    "max_bins": 32,
    "early_stopping": False,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What a model sees of each row; a row is a patient, or one of a patient's images.

    Parameters
    ----------
    numeric
        By name, values of shape (n,), NaN where missing.
    categorical
        By name, n texts, `None` where missing.

    Raises
    ------
    ValueError
        If there is no column, two differ in length or have one name, or a number is infinite.
    """

    numeric: Mapping[str, FloatArray]
    categorical: Mapping[str, Sequence[str | None]]

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (*self.numeric.values(), *self.categorical.values())}
        if len(lengths) != 1 or set(self.numeric) & set(self.categorical):
            msg = f"expected columns of one length and different names, got lengths {sorted(lengths)}"
            raise ValueError(msg)
        for name, values in self.numeric.items():
            if np.isinf(values).any():
                msg = f"expected finite numbers, or NaN where missing, in column {name!r}"
                raise ValueError(msg)

    def __len__(self) -> int:
        return len(next(iter((*self.numeric.values(), *self.categorical.values()))))

    def at(self, rows: IntArray) -> Columns:
        """Give some of the rows."""
        return Columns(
            numeric={name: values[rows] for name, values in self.numeric.items()},
            categorical={name: [texts[row] for row in rows] for name, texts in self.categorical.items()},
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TabularPredictions:
    """Out-of-fold probabilities, or why there are none."""

    probabilities: FloatArray | None
    """Shape (repeats, n, K); they assume equal class shares."""
    models: tuple[str, ...] = ()
    """The model chosen for each repeat and fold, in that order."""
    reason: str | None = None
    """Why there are no probabilities."""


def predict_out_of_fold(
    columns: Columns,
    labels: npt.ArrayLike,
    *,
    classes: Sequence[str],
    patients: Sequence[str],
    folds: npt.ArrayLike,
    seed: int = 0,
) -> TabularPredictions:
    """Predict the rows of each fold by a model that is chosen and fitted on the other folds.

    The logistic regression sees each numeric column as a restricted cubic spline, each name of a categorical column
    as 0 or 1, and whether a value is missing; its penalty is chosen too. The boosting sees the columns as they are.
    Choice is by log loss in `INNER_FOLDS` folds of the training patients. A column that does not vary there, or holds
    nothing, is left out; where none is left, every class gets the same probability.

    Parameters
    ----------
    columns
        n rows.
    labels
        Class indices, shape (n,).
    classes
        Names of the classes, length K.
    patients
        The patient of each row, length n.
    folds
        The fold that each row is tested in, integers of shape (repeats, n); all rows of a patient in one fold.
    seed
        Of the inner folds; the same seed gives the same probabilities.

    Returns
    -------
    Without probabilities, and with the reason, where a class has no patient left to learn from in some fold.

    Raises
    ------
    ValueError
        If shapes do not fit, a patient has two labels or is in two folds of a repeat, or a repeat has a single fold.

    References
    ----------
    Harrell FE. Regression Modeling Strategies. 2nd ed. Springer 2015, section 2.4.5 (restricted cubic splines).
    """
    import sklearn
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    truth = checked_labels(labels, rows=len(columns), classes=len(classes))
    groups = group_patients(patients, truth)
    fold_of = _checked_folds(folds, groups)
    probabilities = np.empty((len(fold_of), len(columns), len(classes)))
    models: list[str] = []
    # So little work is only slowed down by threads, and by checks of what was checked here.
    checked = sklearn.config_context(assume_finite=True, skip_parameter_validation=True)
    with threadpool_limits(limits=1), checked, warnings.catch_warnings():
        # Where its own solver stalls, the logistic regression goes on with another, and says so.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for repeat, fold in _pairs(fold_of):
            tested = fold_of[repeat] == fold
            training = _Training.of(columns, groups, rows=np.flatnonzero(~tested), classes=len(classes))
            if training.fewest < 1:
                absent = classes[int(training.patients_of_class.argmin())]
                reason = f"in some fold no patient of class {absent!r} is left to learn from"
                return TabularPredictions(probabilities=None, reason=reason)
            derived = _derived(seed, repeat, fold)
            model = _chosen(training, seed=derived)
            task = _Task.of(training, columns.at(np.flatnonzero(tested)), seed=derived)
            probabilities[repeat, tested] = task.predict(model)
            models.append(model.name)
    return TabularPredictions(probabilities=probabilities, models=tuple(models))


def patient_means(probabilities: FloatArray, patients: Patients) -> FloatArray:
    """Average probabilities of shape (repeats, n, K) over each patient's rows: shape (repeats, P, K)."""
    repeats, _, classes = probabilities.shape
    total = np.zeros((len(patients.names), repeats, classes))
    np.add.at(total, patients.row, np.moveaxis(probabilities, 1, 0))
    means: FloatArray = np.moveaxis(total, 0, 1) / np.bincount(patients.row)[:, np.newaxis]
    return means


def _checked_folds(folds: npt.ArrayLike, patients: Patients) -> IntArray:
    fold_of = np.asarray(folds)
    if fold_of.ndim != 2 or fold_of.shape[1] != len(patients.row) or not np.issubdtype(fold_of.dtype, np.integer):
        msg = f"folds must be integers of shape (repeats, {len(patients.row)}), got {fold_of.dtype} {fold_of.shape}"
        raise ValueError(msg)
    for of_repeat in fold_of:
        of_patient = np.zeros(len(patients.names), dtype=fold_of.dtype)
        of_patient[patients.row] = of_repeat
        torn = np.unique(patients.row[of_patient[patients.row] != of_repeat])
        if torn.size or len(np.unique(of_repeat)) < 2:
            msg = f"expected two folds or more and each patient in one, got {torn.size} patients in two or more"
            raise ValueError(msg)
    return fold_of.astype(np.int64)


def _pairs(fold_of: IntArray) -> list[tuple[int, int]]:
    return [(repeat, fold) for repeat, folds in enumerate(fold_of) for fold in np.unique(folds).tolist()]


def _derived(seed: int, repeat: int, fold: int) -> int:
    return int(np.random.SeedSequence((seed, repeat, fold)).generate_state(1)[0])


# The training part ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    """Rows to learn from."""

    columns: Columns
    labels: IntArray
    patient: IntArray
    """Index of each row's patient among those of this part, counted from 0."""
    label_of_patient: IntArray
    classes: int

    @classmethod
    def of(cls, columns: Columns, patients: Patients, *, rows: IntArray, classes: int) -> Self:
        names, patient = np.unique(patients.row[rows], return_inverse=True)
        label_of_patient = patients.label[names]
        return cls(
            columns=columns.at(rows),
            labels=label_of_patient[patient],
            patient=patient,
            label_of_patient=label_of_patient,
            classes=classes,
        )

    @property
    def patients_of_class(self) -> IntArray:
        return np.bincount(self.label_of_patient, minlength=self.classes)

    @property
    def fewest(self) -> int:
        return int(self.patients_of_class.min())

    @property
    def weights(self) -> FloatArray:
        """Weigh each class the same, and each patient of a class; they sum to the number of patients."""
        rows_of_patient = np.bincount(self.patient)
        share = len(self.label_of_patient) / (self.classes * self.patients_of_class)
        weights: FloatArray = share[self.labels] / rows_of_patient[self.patient]
        return weights

    def part(self, members: IntArray) -> _Training:
        """Keep some of the patients."""
        rows = np.flatnonzero(np.isin(self.patient, members))
        patients = Patients(names=(), row=self.patient, label=self.label_of_patient)
        return _Training.of(self.columns, patients, rows=rows, classes=self.classes)


# Columns to numbers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class _Encoder:
    """Turns columns into the matrices that the two kinds of model take; learnt from training rows."""

    knots: Mapping[str, FloatArray]
    """By numeric column: its least value, the knots between, its greatest."""
    levels: Mapping[str, tuple[str, ...]]
    """By categorical column: the names that count."""
    gaps: tuple[str, ...]
    """Columns of which some values are missing, and not all."""

    @classmethod
    def fit(cls, columns: Columns) -> Self:
        known = {name: values[~np.isnan(values)] for name, values in columns.numeric.items()}
        missing = {
            **{name: np.isnan(values) for name, values in columns.numeric.items()},
            **{name: np.array([text is None for text in texts]) for name, texts in columns.categorical.items()},
        }
        return cls(
            knots={name: _knots(values) for name, values in known.items() if len(np.unique(values)) > 1},
            levels={
                name: levels for name, texts in columns.categorical.items() if len(levels := _frequent_levels(texts))
            },
            gaps=tuple(name for name, gap in missing.items() if gap.any() and not gap.all()),
        )

    @property
    def saturated(self) -> bool:
        """Whether one name at most is known of a row, so that all models can only say how often a class has it."""
        return not self.knots and len(self.levels) <= 1

    def linear(self, columns: Columns) -> FloatArray:
        """Splines, names as 0 or 1, and what is missing: shape (n, columns)."""
        splines = [_spline(columns.numeric[name], knots) for name, knots in self.knots.items()]
        gaps = [_is_missing(columns, name)[:, np.newaxis] for name in self.gaps]
        return _side_by_side([*splines, *self._names(columns), *gaps], rows=len(columns))

    def plain(self, columns: Columns) -> FloatArray:
        """Numbers as they are, NaN where missing, and names as 0 or 1: shape (n, columns)."""
        numbers = [columns.numeric[name][:, np.newaxis] for name in self.knots]
        return _side_by_side([*numbers, *self._names(columns)], rows=len(columns))

    def _names(self, columns: Columns) -> list[FloatArray]:
        return [
            np.array([[text == level for level in levels] for text in columns.categorical[name]], dtype=np.float64)
            for name, levels in self.levels.items()
        ]


def _side_by_side(blocks: Sequence[FloatArray], *, rows: int) -> FloatArray:
    return np.concatenate(blocks, axis=1) if blocks else np.empty((rows, 0))


def _is_missing(columns: Columns, name: str) -> FloatArray:
    if name in columns.numeric:
        return np.isnan(columns.numeric[name]).astype(np.float64)
    return np.array([text is None for text in columns.categorical[name]], dtype=np.float64)


def _frequent_levels(texts: Sequence[str | None]) -> tuple[str, ...]:
    """Names of a column, at most `_MOST_LEVELS`, sorted; none where there is one name and nothing missing."""
    names, counts = np.unique([text for text in texts if text is not None], return_counts=True)
    if len(names) == 1 and counts[0] == len(texts):
        return ()
    frequent = np.argsort(-counts, kind="stable")[:_MOST_LEVELS]
    return tuple(sorted(names[frequent].tolist()))


def _knots(values: FloatArray) -> FloatArray:
    inner = np.unique(np.quantile(values, KNOTS))
    return np.concatenate([[values.min()], inner, [values.max()]])


def _spline(values: FloatArray, knots: FloatArray) -> FloatArray:
    """Restricted cubic spline: the value itself, and a curved term for each knot but two; shape (n, terms).

    Beyond the range that was seen it stays as it is at the range's end. Where values are tied there are fewer knots;
    with two or one, only the value itself is left. A missing value gives NaN.
    """
    x = np.clip(values, knots[0], knots[-1])
    inner = knots[1:-1]
    if len(inner) < 3:
        return x[:, np.newaxis]
    above = np.maximum(x[:, np.newaxis] - inner, 0) ** 3
    last, before = inner[-1], inner[-2]
    curved = [
        (above[:, j] - (above[:, -2] * (last - inner[j]) - above[:, -1] * (before - inner[j])) / (last - before))
        / (last - inner[0]) ** 2
        for j in range(len(inner) - 2)
    ]
    return np.column_stack([x, *curved])


# The two kinds of model -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A kind of model and its settings."""

    strength: float | None
    """Inverse strength of the logistic regression's penalty, or None for boosting."""

    @property
    def name(self) -> str:
        return "boosting" if self.strength is None else f"logistic, C = {self.strength:g}"

    def estimator(self, seed: int) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier
        from sklearn.linear_model import LogisticRegression

        if self.strength is None:
            return HistGradientBoostingClassifier(**_BOOSTING, random_state=seed)
        return LogisticRegression(C=self.strength, solver="newton-cholesky", max_iter=1000)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Task:
    """Rows to learn from and rows to predict, as the matrices that the models take."""

    training: _Training
    linear: tuple[FloatArray, FloatArray]
    """To learn from and to predict, standardised."""
    plain: tuple[FloatArray, FloatArray]
    seed: int

    @classmethod
    def of(cls, training: _Training, predicted: Columns, *, seed: int) -> Self:
        encoder = _Encoder.fit(training.columns)
        linear = _standardised(encoder.linear(training.columns), encoder.linear(predicted))
        return cls(
            training=training,
            linear=linear,
            plain=(encoder.plain(training.columns), encoder.plain(predicted)),
            seed=seed,
        )

    def predict(self, model: _Model) -> FloatArray:
        """Give probabilities, shape (n, K); the same for every class where no column tells anything."""
        learnt, predicted = self.plain if model.strength is None else self.linear
        if not learnt.shape[1]:
            return np.full((len(predicted), self.training.classes), 1 / self.training.classes)
        estimator = model.estimator(self.seed)
        estimator.fit(learnt, self.training.labels, sample_weight=self.training.weights)
        shares: FloatArray = estimator.predict_proba(predicted)
        return shares


def _standardised(learnt: FloatArray, predicted: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Standardise both by the first; what is missing becomes the mean."""
    mean, deviation = np.nanmean(learnt, axis=0), np.nanstd(learnt, axis=0)
    scale = np.where(deviation > 0, deviation, 1.0)
    return np.nan_to_num((learnt - mean) / scale), np.nan_to_num((predicted - mean) / scale)


def _chosen(training: _Training, *, seed: int) -> _Model:
    """Choose by log loss in inner folds of the training patients, each class and patient weighing the same."""
    if training.fewest < FEWEST_TO_CHOOSE or _Encoder.fit(training.columns).saturated:
        return _Model(strength=FIXED_STRENGTH)
    candidates = [_Model(strength=strength) for strength in STRENGTHS]
    if len(training.label_of_patient) >= FEWEST_TO_BOOST:
        candidates.append(_Model(strength=None))
    losses = np.zeros(len(candidates))
    for learnt, judged in _inner_parts(training, seed=seed):
        task = _Task.of(learnt, judged.columns, seed=seed)
        losses += [_loss(task.predict(model), judged) for model in candidates]
    return candidates[int(losses.argmin())]


def _inner_parts(training: _Training, *, seed: int) -> list[tuple[_Training, _Training]]:
    from sklearn.model_selection import StratifiedKFold

    dealer = StratifiedKFold(INNER_FOLDS, shuffle=True, random_state=seed)
    sides = dealer.split(training.label_of_patient, training.label_of_patient)
    return [(training.part(learnt), training.part(judged)) for learnt, judged in sides]


def _loss(probabilities: FloatArray, judged: _Training) -> float:
    shares = probabilities[np.arange(len(judged.labels)), judged.labels]
    return float(judged.weights @ -np.log(np.maximum(shares, SMALLEST_PROBABILITY)))
