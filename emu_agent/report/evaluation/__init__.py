"""What a person looks at after scoring: one page, and a recording for the Rerun viewer."""
