"""Class-balanced sampling: as mmdet3d's dataset draws, but from a seed."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from mmdet3d.datasets import CBGSDataset
from train_cases import prepare

from train.engine.data import train_loader
from train.engine.sampler import class_balanced_rows

# A common class, a rare one, one that always comes with the common one, and one that nobody shows.
LABELS = [{0, 2}] * 50 + [{0}] * 30 + [{1}] * 4 + [set()] * 6
NUM_CLASSES = 4


def test_counts_are_those_of_mmdet3d():
    class Dataset:
        metainfo = {"classes": ("a", "b", "c")}  # noqa: RUF012

        def __len__(self):
            return len(LABELS)

        def get_cat_ids(self, row):
            return LABELS[row]

        def full_init(self):
            pass

    wrapped = CBGSDataset.__new__(CBGSDataset)
    wrapped.dataset, wrapped._metainfo = Dataset(), Dataset.metainfo
    theirs = wrapped._get_sample_indices(Dataset())
    ours = class_balanced_rows(LABELS, 3, seed=0)
    assert len(ours) == len(theirs)


def test_every_class_that_is_shown_has_equally_many_draws():
    rows = class_balanced_rows(LABELS, NUM_CLASSES, seed=3)
    each = (80 + 4 + 50) // NUM_CLASSES
    assert len(rows) == 3 * each
    assert set(rows[each : 2 * each]) <= set(range(80, 84))
    assert all(2 in LABELS[row] for row in rows[2 * each :])
    assert max(Counter(rows[each : 2 * each]).values()) > 1
    assert rows == class_balanced_rows(LABELS, NUM_CLASSES, seed=3)
    assert rows != class_balanced_rows(LABELS, NUM_CLASSES, seed=4)


def test_nothing_to_show():
    assert class_balanced_rows([set(), set()], NUM_CLASSES, seed=0) == []


@pytest.mark.usefixtures("one_thread")
def test_a_config_asks_for_it(workshop):
    got = prepare(workshop.options(workshop.student_config("balanced", class_balanced=True)))
    options = {"batch_size": 1, "workers": 0, "seed": 0}
    loader = train_loader(got.config, got.index, workshop.dataroot, **options)
    labels = [loader.dataset.labels_of(row) for row in range(len(loader.dataset))]
    truth = [loader.dataset.data_sample(row).gt_instances_3d.labels_3d for row in range(len(labels))]
    assert [sorted(shown) for shown in labels] == [np.unique(found).tolist() for found in truth]
    num_classes = len(got.config.model.class_names)
    assert sorted(loader.sampler) == sorted(class_balanced_rows(labels, num_classes, seed=0))
