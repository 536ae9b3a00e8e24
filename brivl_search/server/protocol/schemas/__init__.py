"""Shapes of requests and answers, as the OpenAPI document shows them: a module for each group of routes."""
