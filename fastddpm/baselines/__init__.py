"""What the paper compares DDPM with, trained through the same data path."""
