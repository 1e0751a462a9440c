"""Search a method's grid on the surrogates, writing each candidate's weights into one live model."""
