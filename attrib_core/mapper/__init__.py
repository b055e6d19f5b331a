"""Fitting the heads that map embeddings: sets, contrastive training, choice by validation."""
