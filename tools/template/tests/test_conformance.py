"""What every method promises of its training."""

from crosslingual_worlds.testing import conformance


class TestTraining(conformance.Training):
    golden = (1.008029, 1.0123272, 0.9531795, 0.88471, 0.8520374, 0.8662215)
    averages = True
    num_trainable = 736
