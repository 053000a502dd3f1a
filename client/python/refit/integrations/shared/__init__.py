"""What the plugs share, a file each. It knows none of them."""
