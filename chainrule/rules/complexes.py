"""Complex numbers: parts, polar form, conjugates. The gradient of a real loss towards z = x + iy is dL/dx + i dL/dy."""
