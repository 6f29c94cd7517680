"""What `nabla demo` needs: handwritten digits, the job that learns them, a private service."""
