"""What every method promises of its training."""

from crosslingual_worlds.testing import conformance


class TestTraining(conformance.Training):
    golden = (1.0061759, 0.9923964, 0.9422329, 0.874293, 0.8506943, 0.8287022)
    averages = True
    num_trainable = 736


class TestContinual(conformance.Continual):
    other = ({"hidden_width": 12}, "differ in hidden_width (24 and 12)")
