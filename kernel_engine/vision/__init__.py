"""Images: from what a request names (`sources`, `pictures`) through the model's processor to its prompt (`prompt`, `sight`)."""
