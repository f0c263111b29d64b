"""The one training loop; knows tasks only by their protocol."""
