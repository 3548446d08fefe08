"""What an installation's operator needs: servers, their supervisor, doctor, backup, images. No model is judged."""
