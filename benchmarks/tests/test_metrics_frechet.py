"""FID and KID equal their definitions, torch-fidelity and torchmetrics."""

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from unittest.mock import MagicMock

import numpy as np
import pytest
import scipy.linalg
import torch

from crosslingual_benchmarks.metrics import frechet
from crosslingual_benchmarks.metrics.frechet import frechet_distance, kernel_distance

TORCHVISION = ("torchvision", "torchvision.datasets", "torchvision.transforms")
TORCHVISION += ("torchvision.transforms.functional",)


def is_installed(name):
    return importlib.util.find_spec(name) is not None


@pytest.fixture(scope="module", autouse=True)
def import_of_torch_fidelity():
    """It imports torchvision at once, for datasets and other networks; a stub does where that is
    absent. torchmetrics takes it as it finds it.
    """
    if is_installed("torch_fidelity") and not is_installed("torchvision"):
        with pytest.MonkeyPatch.context() as patch:
            for name in TORCHVISION:
                patch.setitem(sys.modules, name, MagicMock(__spec__=ModuleSpec(name, None)))
            importlib.import_module("torch_fidelity")


def two_sets(num_a, num_b, width, dtype=np.float64):
    """Correlated features of two distributions."""
    draw = np.random.default_rng(num_a)
    mix = draw.normal(size=(width, width)) / width**0.5
    a = draw.normal(size=(num_a, width)) @ mix + 0.3
    b = draw.normal(size=(num_b, width)) @ (mix + 0.3 * np.eye(width)) + draw.normal(size=width) / 4
    return a.astype(dtype), b.astype(dtype)


def plain_fid(a, b):
    """Eq. 6 of Heusel et al. 2017 as it stands."""
    covariance_a, covariance_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    difference = a.mean(axis=0) - b.mean(axis=0)
    return difference @ difference + np.trace(covariance_a + covariance_b - 2 * root)


def plain_kid(a, b):
    """The unbiased estimate, a kernel at a time."""

    def kernel(x, y):
        return (float(x @ y) / len(x) + 1) ** 3

    def within(rows):
        pairs = [kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]
        return sum(pairs) / len(pairs)

    across = [kernel(x, y) for x in a for y in b]
    return within(a) + within(b) - 2 * sum(across) / len(across)


def test_distances_of_two_points_each_equal_the_hand_computed():
    a, b = np.array([[0.0], [2.0]]), np.array([[1.0], [5.0]])
    # means 1 and 3, variances 2 and 8: 4 + 2 + 8 - 2 sqrt(16)
    assert frechet_distance(a, b).value == pytest.approx(6, abs=1e-12)
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # k(0, 1) = 1, k(1, 2) = 27; across 1, 1, 8, 27: 1 + 27 - 2 * 37 / 4
    assert kernel_distance(a, b) == pytest.approx(9.5, abs=1e-12)


@pytest.mark.parametrize(("num_a", "num_b", "width"), [(300, 300, 48), (90, 400, 32), (60, 64, 1)])
def test_fid_equals_its_definition(num_a, num_b, width):
    a, b = two_sets(num_a, num_b, width)
    if width == 1:
        expected = (a.mean() - b.mean()) ** 2 + (a.std(ddof=1) - b.std(ddof=1)) ** 2
    else:
        expected = plain_fid(a, b)
    found = frechet_distance(a, b)
    assert found.value == pytest.approx(expected, abs=1e-9)
    assert (found.num_rows_a, found.num_rows_b, found.width) == (num_a, num_b, width)
    assert found.warning is None


@pytest.mark.parametrize("num_rows", [2, 30, 500])
def test_equal_sets_have_distance_zero_whatever_their_order(num_rows):
    a, _ = two_sets(num_rows, 2, 64)
    assert frechet_distance(a, a).value == pytest.approx(0, abs=1e-11)
    assert frechet_distance(a, a[::-1]).value == pytest.approx(0, abs=1e-11)


def test_fid_of_fewer_rows_than_dimensions_is_that_in_the_dimensions_they_span():
    a, b = two_sets(20, 25, 5)
    draw = np.random.default_rng(0)
    turn, _ = np.linalg.qr(draw.normal(size=(80, 80)))
    wide_a, wide_b = (np.pad(rows, ((0, 0), (0, 75))) @ turn for rows in (a, b))
    found = frechet_distance(wide_a, wide_b)
    assert found.value == pytest.approx(plain_fid(a, b), abs=1e-9)
    assert "20 pictures in 80 dimensions" in found.warning


def test_moving_one_set_adds_the_squared_way_and_moving_both_nothing():
    a, b = two_sets(200, 150, 16)
    way = np.linspace(-2, 2, 16)
    still = frechet_distance(a, a + way).value
    assert still == pytest.approx(way @ way, abs=1e-9)
    assert frechet_distance(a + way, b + way).value == pytest.approx(frechet_distance(a, b).value)


def test_kid_of_all_rows_equals_its_definition_whatever_the_chunks(monkeypatch):
    a, b = two_sets(40, 31, 12)
    expected = plain_kid(a, b)
    assert kernel_distance(a, b) == pytest.approx(expected, abs=1e-10)
    monkeypatch.setattr(frechet, "CHUNK_ROWS", 7)
    assert kernel_distance(a, b) == pytest.approx(expected, abs=1e-10)


def test_kid_is_unbiased_and_fid_is_not():
    draw = np.random.default_rng(0)
    sets = [(draw.normal(size=(40, 8)), draw.normal(size=(60, 8))) for _ in range(300)]
    kids = np.array([kernel_distance(a, b) for a, b in sets])
    assert abs(kids.mean()) < 3 * kids.std() / 300**0.5
    fids = np.array([frechet_distance(a, b).value for a, b in sets])
    assert fids.mean() > 10 * fids.std() / 300**0.5


@pytest.mark.skipif(not is_installed("torch_fidelity"), reason="torch-fidelity is not installed")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_equal_torch_fidelity(dtype):
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    a, b = two_sets(400, 330, 64, dtype)
    tensors = torch.from_numpy(a), torch.from_numpy(b)
    statistics = map(fid_features_to_statistics, tensors)
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    # of fp32 features it takes the mean in fp32
    tolerance = {"abs": 1e-6} if dtype is np.float64 else {"rel": 1e-6}
    assert frechet_distance(*tensors).value == pytest.approx(theirs, **tolerance)
    whole = tensors[0][:330], tensors[1]  # its subsets are the whole sets, of one size
    kid = kid_features_to_metric(*whole, kid_subsets=1, kid_subset_size=330, verbose=False)
    ours = kernel_distance(*whole)
    assert ours == pytest.approx(kid["kernel_inception_distance_mean"], abs=1e-6)


@pytest.mark.skipif(not is_installed("torchmetrics"), reason="torchmetrics is not installed")
@pytest.mark.filterwarnings("ignore")  # it says how much memory features take
def test_both_equal_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = map(torch.from_numpy, two_sets(330, 330, 64))
    identity = torch.nn.Identity()
    identity.num_features = 64
    fid = FrechetInceptionDistance(feature=identity)
    kid = KernelInceptionDistance(feature=identity, subsets=1, subset_size=330)
    for metric in (fid, kid):
        for rows, is_real in ((a, True), (b, False)):
            for part in rows.split(150):
                metric.update(part, real=is_real)
    assert frechet_distance(a, b).value == pytest.approx(fid.compute().item(), abs=1e-6)
    assert kernel_distance(a, b) == pytest.approx(kid.compute()[0].item(), abs=1e-6)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance], ids=lambda f: f.__name__)
def test_features_that_cannot_be_compared_are_refused(distance):
    good = np.random.default_rng(0).normal(size=(6, 3))
    spoilt = good.copy()
    spoilt[[2, 4], 1] = np.nan
    with pytest.raises(ValueError, match=r"row 2 of features b is not finite \(2 of 6"):
        distance(good, spoilt)
    spoilt[:] = np.inf
    with pytest.raises(ValueError, match="row 0 of features a is not finite"):
        distance(spoilt, good)
    with pytest.raises(ValueError, match="features b have 1 rows; at least 2"):
        distance(good, good[:1])
    with pytest.raises(ValueError, match="widths 3 and 2 are of different extractors"):
        distance(good, good[:, :2])
    with pytest.raises(ValueError, match=r"features a have shape \(6,\)"):
        distance(good[:, 0], good)
