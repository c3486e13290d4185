"""The update rule: terms, their schedules, their gradients, and the contracts that plugins keep."""
