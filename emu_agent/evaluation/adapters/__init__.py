"""World models as the scorer meets them: two methods each."""
