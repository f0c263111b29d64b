"""What a head is trained on, how it is decoded and how it is scored."""
