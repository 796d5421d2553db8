"""What every method promises of its training, for PEA."""

from crosslingual_worlds.testing import conformance


class TestFamilies(conformance.Families):
    changes = {
        "sd3": {"feature_outputs": "attentions", "feature_blocks": [0, 2]},
        "flux": {"gradient_checkpointing": True, "feature_distance": "x2i", "pictures": False},
        "sana": {"warm_start_share": 1.0, "optimizer": "muon"},
        "sdxl": {"warm_start_share": 0.5},
        "pixart": {"warm_start_share": 0.5},
        "pixart_sigma": {"feature_weight": 0.0},
    }


class TestTraining(conformance.Training):
    golden = (0.5192509, 0.2726691, 0.2938421, 0.2693305, 0.4099375, 0.2659875)
    learns = (
        {
            "learning_rate": 2e-2,
            "variant": "published",
            "validation_prompts": ["ein Haus 3"],
            "guidance_scale": 2.0,
        },
    )
    averages = True
    num_trainable = 1272


class TestContinual(conformance.Continual):
    other = ({"hidden_width": 12}, "differ in hidden_width (24 and 12)")
