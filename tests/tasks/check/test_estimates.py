"""Estimates are right where their assumption holds, blind where it does not, and their record says which it was."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from decision_world import CATEGORICAL, NUMERIC, make_frame, make_reference
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from tasks.calibration.fit import Recalibrator
from tasks.check.estimate import estimates
from tasks.measures.quality import row_losses

WEEK = timedelta(days=7)
RNG = np.random.default_rng(0)


def world(rows: int, shift: float, seed: int, concept: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Truth, and answers of a model too sure of itself; `shift` moves its inputs, `concept` what they mean."""
    generator = np.random.default_rng(seed)
    inner = generator.normal(shift, 1, rows)
    truth = (generator.random(rows) < expit(inner + concept)).astype(float)
    return truth, expit(2 * inner)


class TestClasses:
    @pytest.mark.parametrize("loss", ["log_loss", "brier", "error"])
    def test_moved_inputs_are_seen_by_a_model_that_is_badly_calibrated(self, loss: str) -> None:
        truth, raw = world(20_000, 0.0, 1)
        later, answers = world(20_000, 1.2, 2)
        found = estimates.estimate_class_loss(truth, raw, answers, None, loss)
        realised = row_losses(later, answers, loss).mean()
        before = row_losses(truth, raw, loss).mean()
        assert abs(found.value - realised) < 4 * found.standard_error + 0.01
        assert abs(found.value - realised) < abs(before - realised) / 3
        assert found.auc == pytest.approx(roc_auc_score(later, answers), abs=0.02)

    def test_what_the_inputs_mean_is_not_seen(self) -> None:
        """The limit of every such estimate: nothing of a new concept shows in the scores."""
        truth, raw = world(20_000, 0.0, 1)
        later, answers = world(20_000, 0.0, 2, concept=2.0)
        found = estimates.estimate_class_loss(truth, raw, answers, None, "log_loss")
        assert found.value == pytest.approx(row_losses(truth, raw, "log_loss").mean(), abs=0.02)
        assert row_losses(later, answers, "log_loss").mean() > found.value + 0.15

    def test_the_map_in_force_is_what_answers(self) -> None:
        truth, raw = world(20_000, 0.0, 1)
        mended = Recalibrator("classification", "platt", (0.5, 0.0))
        found = estimates.estimate_class_loss(truth, raw, raw, mended, "log_loss")
        assert found.value == pytest.approx(row_losses(truth, mended.apply(raw), "log_loss").mean(), abs=0.01)

    def test_the_order_of_rows_is_of_no_account(self) -> None:
        truth, raw = world(3_000, 0.0, 1)
        _, answers = world(50_000, 0.5, 2)
        shuffled = np.random.default_rng(3).permutation(answers)
        first, second = (
            estimates.estimate_class_loss(truth, raw, each, None, "log_loss") for each in (answers, shuffled)
        )
        assert first == second
        assert first.rows == 50_000

    def test_one_class_alone_is_taken_at_its_word(self) -> None:
        found = estimates.estimate_class_loss(np.zeros(200), np.full(200, 0.1), np.full(50, 0.1), None, "log_loss")
        assert found.value == pytest.approx(-np.log(0.9))
        assert found.auc is None

    def test_the_standard_error_is_that_of_the_window(self) -> None:
        truth, raw = world(20_000, 0.0, 1)
        found = estimates.estimate_class_loss(truth, raw, raw[:400], None, "log_loss")
        means = [row_losses(*world(400, 0.0, seed), "log_loss").mean() for seed in range(200)]
        assert found.standard_error == pytest.approx(np.std(means), rel=0.25)


class TestExpectedAuc:
    def test_certain_chances_give_the_area_itself(self) -> None:
        truth = (RNG.random(500) < 0.4).astype(float)
        score = np.round(truth * 0.3 + RNG.random(500), 1)  # with ties
        assert estimates.expected_auc(truth, score) == pytest.approx(roc_auc_score(truth, score))

    def test_without_pairs_there_is_none(self) -> None:
        assert estimates.expected_auc(np.ones(5), np.arange(5.0)) is None


class TestValues:
    def test_windows_of_harder_rows_are_told_from_easy_ones(self) -> None:
        frame = make_frame(10, seed=1)
        reference = make_reference(frame, task="regression", loss="mse", scores=None)
        hard = (frame["carrier"] == "BB").to_numpy()
        generator = np.random.default_rng(2)
        score = generator.normal(size=len(frame))
        losses = generator.normal(0, np.where(hard, 3.0, 1.0)) ** 2
        read = estimates.loss_inputs(frame, score, reference)
        first, later = np.arange(3_000), np.arange(3_000, len(frame))
        for part, wanted in ((later[hard[later]], 9.0), (later[~hard[later]], 1.0)):
            found = estimates.estimate_value_loss(losses[first], read[first], read[part], len(part))
            assert found.value == pytest.approx(wanted, rel=0.2)
            assert abs(found.value - losses[part].mean()) < 4 * found.standard_error + 0.3

    def test_unseen_and_missing_values_have_a_place(self) -> None:
        frame = make_frame(4)
        reference = make_reference(frame)
        broken = frame.assign(carrier="ZZ", speed=np.nan, temperature=1e9)
        read = estimates.loss_inputs(broken, np.zeros(len(frame)), reference)
        assert read.shape == (len(frame), len(NUMERIC) + len(CATEGORICAL) + 1)
        assert np.isfinite(read).all()


def test_a_sample_by_ids_does_not_depend_on_their_order() -> None:
    ids = pd.Series([f"row-{number}" for number in range(1_000)])
    shuffled = ids.sample(frac=1, random_state=1)
    first = ids.iloc[estimates.sample_ids(ids, 100)].tolist()
    assert first == shuffled.iloc[estimates.sample_ids(shuffled, 100)].tolist()
    assert len(set(first)) == 100
    assert sorted(ids.iloc[estimates.sample_ids(ids, 2_000)]) == sorted(ids)
