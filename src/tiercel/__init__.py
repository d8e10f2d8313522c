"""Tiercel: a tiered KV cache for LLM serving."""
