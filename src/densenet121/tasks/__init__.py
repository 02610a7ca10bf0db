"""What a label means: one module a task, asked by everything that trains, scores and reports."""
