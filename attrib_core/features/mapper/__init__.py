"""Stage `tune`: fit mapper heads on train sets by contrastive learning, select them on validation sets."""
